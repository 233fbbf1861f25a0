"""Tables (Parquet, Arrow, CSV) in and out of moerun. See README.md beside the package."""
from moerun_io.answers import Answers, iter_answers, read
from moerun_io.errors import InputError
from moerun_io.join import join
from moerun_io.to_input import to_input

__all__ = ["Answers", "InputError", "iter_answers", "join", "read", "to_input"]
__version__ = "0.1.0"
