"""Help for tests: real servers, network faults, contract suites for backend authors."""
