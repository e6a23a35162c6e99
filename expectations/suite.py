"""Which expectations follow from the contract?"""

from __future__ import annotations

import great_expectations as gx
import great_expectations.expectations as gxe

from ratchet.contract import Contract


def build(contract: Contract) -> gx.ExpectationSuite:
    """The suite of a contract: one expectation per promise, each with the reason it is quarantined under.

    Row rules carry the meta key `row`: the rows that break them are named. The others judge the batch whole.
    """
    suite = gx.ExpectationSuite(name=f"{contract.name}-v{contract.version}")
    suite.add_expectation(gxe.ExpectTableRowCountToBeBetween(min_value=1, meta={"reason": "the batch has no rows"}))
    suite.add_expectation(
        gxe.ExpectColumnValuesToBeUnique(
            column=contract.id, meta={"row": True, "column": contract.id, "reason": f"{contract.id} is not unique"}
        )
    )
    for column in contract.columns:
        meta = {"row": True, "column": column.name, "reason": f"{column.name} must be {column.allowed}"}
        if column.role == "target":
            suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=[0, 1], meta=meta))
            continue
        if not column.may_miss:
            absent = meta | {"reason": f"{column.name} is missing"}
            suite.add_expectation(gxe.ExpectColumnValuesToNotBeNull(column=column.name, meta=absent))
        elif column.role == "feature":
            share = {"reason": f"{column.name} is missing more often than {column.missing:.0%}"}
            suite.add_expectation(
                gxe.ExpectColumnProportionOfNonNullValuesToBeBetween(column=column.name, min_value=1 - column.missing, meta=share)
            )
        if column.values is not None:
            suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=list(column.values), meta=meta))
        elif column.scale == "binary" and column in contract.requested:
            suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=[0, 1], meta=meta))
        elif column.range is not None:
            low, high = column.range
            suite.add_expectation(gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=low, max_value=high, meta=meta))
            if column.scale == "discrete":
                suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column=f"{column.name}__whole", value_set=[True], meta=meta))
    for rule in contract.rules:
        meta = {"row": True, "column": f"rule {rule.name}", "reason": rule.reason}
        suite.add_expectation(gxe.ExpectColumnValuesToBeInSet(column=f"{rule.name}__rule", value_set=[True], meta=meta))
    return suite
