"""The type checker that the tests apply to the package's annotations."""

from beartype import BeartypeConf, beartype

# An int is welcome where a float is asked for, as everywhere else in Python.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
