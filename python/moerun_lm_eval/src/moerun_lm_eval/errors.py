"""How an evaluation fails: a sentence that says what to do, and moerun's exit codes."""


class MoerunError(RuntimeError):
    """`code` as moerun's: 2 bad options or input, 75 stopped and to be resumed, 1 a fault."""

    def __init__(self, sentence, code=2):
        super().__init__(sentence)
        self.code = code
