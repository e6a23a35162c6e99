"""What can go wrong that a person can put right?

RatchetError                every sentence meant for a person derives from it
├── ContractError           contract.yaml or problem.yaml does not say what it must
├── BatchError              a batch of data cannot be taken
├── ReleaseError            a release is damaged, or the live service does not answer as it was probed
├── StoreError              the store cannot be opened, or is of another version
└── StackError              a server did not come up, a port is taken, a folder cannot be written
"""


class RatchetError(Exception):
    """A foreseeable mistake or mishap, told in a sentence: what was wrong, where, what to do."""


class ContractError(RatchetError):
    """The declaration of a problem is wrong."""


class BatchError(RatchetError):
    """A batch of data cannot be taken; nothing of it was kept."""


class ReleaseError(RatchetError):
    """A release cannot be trusted."""


class StoreError(RatchetError):
    """The ledger and log cannot be used."""


class StackError(RatchetError):
    """A process of the stack cannot do its work."""
