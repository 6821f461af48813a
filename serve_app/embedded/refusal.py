"""The one error of the command line that is the user's to solve."""


class Refusal(Exception):
    """`brain` cannot do this. The message is one line that says what and what to do; the exit code is 2."""
