"""Plain-torch computations of the published networks and solvers, to test the real classes against."""
