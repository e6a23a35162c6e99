"""Great Expectations: suites built from the contract, validation, quarantine. The only room that imports it."""
