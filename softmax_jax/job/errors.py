"""Errors that end a job, and the exit codes that tell a batch system what happened."""

DONE, USAGE, WORKDIR, DIVERGED, INTERRUPTED = 0, 2, 3, 4, 130
LOST = 134  # another process of the job; JAX, too, may abort with this code where one is lost


class JobError(Exception):
    """A message for the user and an exit code; shown without a traceback."""

    def __init__(self, message, exit_code=USAGE):
        super().__init__(message)
        self.exit_code = exit_code
