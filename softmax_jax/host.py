"""The machine under the program: errors, text from outside, files, memory, caches, commands."""

import base64
import contextlib
import errno
import grp
import importlib
import io
import json
import os
import pwd
import re
import stat
import sys
import tempfile
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

# Control characters but the line feed; characters that turn the direction of text or end a line;
# halves of surrogate pairs, of which a path that is not UTF-8 is made.
_CONTROLS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LONGEST_LINE, _MOST_LINES = 1000, 30  # of an error message
_LONGEST_VALUE = 150  # of a value within it


def aligned(rows: Sequence[Sequence[str]], sides: str = "<>") -> list[str]:
    """Rows of texts as lines with aligned columns.

    Args:
      rows: as many texts in each.
      sides: to which side each column goes, '<' or '>'; the last is that of all further ones.

    >>> aligned([["run", "loss"], ["a", "0.5"]])
    ['run  loss', 'a     0.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = sides.ljust(len(widths), sides[-1])[: len(widths)]
    return [
        "  ".join(
            f"{text:{side}{width}}" for text, side, width in zip(row, sides, widths, strict=True)
        )
        for row in rows
    ]


def shown(text: object) -> str:
    r"""Text from outside as a terminal or a page may have it: control characters are escaped.

    >>> print(shown("a\x1b[31mred\r"))
    a\x1b[31mred\r
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(text))


def cut(text: str, most: int) -> str:
    """The text, or of a longer one its beginning and its end: `most` characters and a few.

    >>> cut("abcdefghij" * 10, 12)
    'abcdefgh … (100 characters) … ghij'
    """
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end]} … ({len(text):,} characters) … {text[len(text) - end :]}"


def is_sparse(value: Any) -> bool:
    """Whether it is a sparse matrix or array of SciPy, which is not imported for it."""
    return type(value).__module__.startswith("scipy.sparse") and hasattr(value, "toarray")


def brief(value: object) -> str:
    """`repr` of a value from outside, cut to what an error message may show of it."""
    try:
        return cut(repr(value), _LONGEST_VALUE)
    except Exception as error:  # anyone's code, or a whole number of too many digits
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"


def message(text: str) -> str:
    """An error message, however long its parts are: lines of at most a few hundred characters."""
    lines = [cut(line, _LONGEST_LINE) for line in shown(text).split("\n")]
    if len(lines) > _MOST_LINES:  # the last one says what to do
        lines[_MOST_LINES:-1] = [f"  ... and {len(lines) - _MOST_LINES - 1:,} more lines"]
    return "\n".join(lines)


_FORMULA = tuple("=+-@\t\r")


def csv_cell(text: str) -> str:
    """Text from data as a cell that no spreadsheet takes for a formula: an apostrophe before it.

    >>> csv_cell("=1+1"), csv_cell("cat")
    ("'=1+1", 'cat')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


class DataError(ValueError):
    """Data that was found, but is damaged, invalid or requested incorrectly."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


class DatasetNotFoundError(DataError):
    """A dataset that was not found on this machine, and could not be downloaded."""


DONE, UNFORESEEN, USAGE, WORKDIR, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 4, 130  # exit codes
LOST = 134  # exit code: another process of the job was lost; JAX itself may abort with it, too


class JobError(Exception):
    """A message for the user, shown without a traceback, and an exit code."""

    def __init__(self, text: str, exit_code: int = USAGE) -> None:
        super().__init__(message(text))
        self.exit_code = exit_code


class NotInstalledError(JobError, ImportError):
    """A package that only an extra of the installation brings."""


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of a package that the extra brings.

    Args:
      module: its full name.
      extra: 'data' or 'plots'.

    Raises:
      NotInstalledError: it is not there; the message has the line to type (exit code 2).
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = (error.name or module).partition(".")[0]
        raise NotInstalledError(
            f"{name} is not installed. Type: pip install 'softmax_jax[{extra}]'"
        ) from error


_ABANDONED = 3600.0  # seconds: a temporary file this old belongs to a process that was killed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that becomes `path` when the block ends without an error.

    The replacement is atomic and durable: after a power cut there is the old file or the new one,
    never half of it. If the block raises anything, an interrupt included, the temporary file is
    removed and `path` stays as it was. Its name is unique, so that two processes never write into
    the same file. What a killed process left behind is removed by a later call for the same path.

    Args:
      path: the file to write; its folder must exist.

    Raises:
      OSError: the folder cannot be written to.
    """
    for old in half_written(path):
        with contextlib.suppress(FileNotFoundError):  # another process may be removing it, too
            if time.time() - old.lstat().st_mtime > _ABANDONED:
                old.unlink()
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the rename: the name must not precede the content
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")  # what `replacing` adds to a name


def half_written(path: Path) -> list[Path]:
    """The temporary files of `replacing` for this path that are there, by their exact names."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(path.parent)
        own = [name for name in names if name.startswith(path.name)]
        return [path.parent / name for name in own if _TEMPORARY.fullmatch(name[len(path.name) :])]
    return []


def _sync_folder(folder: Path) -> None:
    """Makes the names in the folder durable, where the file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


_MEMORY_FRACTION = 0.8  # of the memory that may be allocated at once, at the very most


def available_memory(root: Path = Path("/")) -> int:
    """The memory of the machine in bytes, or the limit of this process's control group if lower.

    Args:
      root: where proc and sys are mounted.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(root)])


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Checks that memory suffices, before it is allocated.

    Args:
      needed: bytes.
      what: what needs them, as the subject of a sentence.
      remedy: a sentence that says what to do instead.

    Raises:
      DataError: more would be needed than may be used.
    """
    most = _MEMORY_FRACTION * available_memory()
    if needed > most:
        size = f"{needed / 2**30:,.1f}" if needed < 2**80 else "more than 2**50"
        raise DataError(
            f"{what} would take {size} GiB of memory, more than the "
            f"{most / 2**30:,.1f} GiB that may be used. {remedy}"
        )


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of the control group (version 1 or 2) and of all groups around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        home, name = root / "sys/fs/cgroup", "memory.max"
        if "memory" in controllers.split(","):
            home, name = home / "memory", "memory.limit_in_bytes"
        folder = home / group.lstrip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(home):
                yield from _read_limit(place / name)


def _read_limit(path: Path) -> Iterator[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return
    if text.isdecimal():  # or 'max'
        yield int(text)


def as_path(given: str | os.PathLike, what: str) -> Path:
    """A path from the user, with the home folder for `~`: the one way in for all of them.

    Args:
      given: the path.
      what: what gave it, such as 'config.dataset'; the message begins with it.

    Raises:
      DataError: no file can have this name, or there is no such user.

    >>> as_path("~nobody_of_this_name/x.npz", "data_dir")
    Traceback (most recent call last):
    softmax_jax.host.DataError: data_dir = '~nobody_of_this_name/x.npz' begins with a home folder \
that is not known. Write the whole path.
    """
    try:
        path = Path(given).expanduser()
        if b"\0" in os.fsencode(path):
            raise ValueError
    except RuntimeError as error:
        raise DataError(
            f"{what} = {brief(given)} begins with a home folder that is not known. Write the whole "
            "path."
        ) from error
    except ValueError as error:  # surrogates that stand for no byte, too
        raise DataError(
            f"{what} = {brief(given)} is no path: it has characters that no name of a file can "
            "have. Correct it."
        ) from error
    return path


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow: bool = True) -> io.BufferedIOBase:
    """Opens a file that has an end: neither a pipe, which may never come to one, nor a device.

    Args:
      path: the file.
      flags: as for `os.open`.
      follow: whether the last part of the path may be a link. In a work folder it may not: whoever
        can write there must not reach files outside.

    Raises:
      OSError: it cannot be opened, or is of another kind.
    """
    _check_regular(os.stat(path, follow_symlinks=follow))  # opening a device may already do harm
    safe = os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags | safe, 0o666)
    try:
        _check_regular(os.fstat(descriptor))
        access = flags & os.O_ACCMODE
        mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}[access]
        mode = "ab" if flags & os.O_APPEND and access == os.O_WRONLY else mode
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "It is a link, and links in a work folder are not followed")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file, but a pipe, a socket or a device")


_MOST_JSON = 1 << 26  # bytes: the largest cost matrix makes a config.json of some 20 MB
_MOST_DEPTH = 20


def read_json(path: Path, *, follow: bool = False) -> Any:
    """The value in a JSON file of a work folder.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON, nested deeply, or larger than any that this program writes.
    """
    with open_regular(path, follow=follow) as file:
        content = file.read(_MOST_JSON + 1)
    if len(content) > _MOST_JSON:
        raise ValueError(f"it is larger than {_MOST_JSON:,} bytes")
    try:
        value = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    return value


def _check_depth(value, room=_MOST_DEPTH):
    if isinstance(value, dict | list):
        if room == 0:
            raise ValueError("it is nested too deeply")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, room - 1)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Path]:
    """Turns every error of the block that reads `path` into a DataError of one line.

    Args:
      path: the file, named in the message.

    Raises:
      DataError: the block raised an exception other than an interrupt.

    >>> with reading(Path("no/such.npz")) as path:
    ...     path.read_bytes()
    Traceback (most recent call last):
    softmax_jax.host.DataError: no/such.npz is not there.
    """
    try:
        yield path
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into the memory of this machine.") from error
    except Exception as error:  # bad archives, JSON or text, nested too deep or too large
        reason = cut(" ".join(str(error).split()), 300) or type(error).__name__
        raise DataError(f"{path} is damaged, or of another kind: {reason}") from error


def user_cache_folder() -> Path:
    """This program's own cache: $XDG_CACHE_HOME/softmax_jax, by default ~/.cache/softmax_jax.

    Raises:
      DataError: XDG_CACHE_HOME is no path, or it is not set and there is no home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    return as_path(given or "~/.cache", "XDG_CACHE_HOME") / "softmax_jax"


def use_compilation_cache() -> str:
    """Keeps compiled programs on disk, so that the second run of a config compiles nothing.

    They are kept in `user_cache_folder`, unless JAX has been given another folder, or
    SOFTMAX_JAX_CACHE=off says not to. A compiled program is code: nothing is kept in, or taken
    from, a folder that somebody else may write to. On GPUs XLA keeps what it has tuned there, too.

    Returns:
      Why there is no cache, to be shown to the user; '' if there is one, or none is wanted.

    Raises:
      DataError: XDG_CACHE_HOME is no path.
    """
    import jax

    given: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if given is not None and "://" in given:  # a store with its own rights
        return ""
    if given is None and os.environ.get("SOFTMAX_JAX_CACHE", "").lower() == "off":
        return ""
    try:
        folder = user_cache_folder() / "xla" if given is None else Path(given)
    except DataError:
        if os.environ.get("XDG_CACHE_HOME"):
            raise
        folder = Path("~")  # there is no home folder
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        doubt = _others_may_write(folder)
    except OSError as error:
        doubt = f"it cannot be made: {error.strerror or error}"
    if doubt:
        jax.config.update("jax_compilation_cache_dir", None)
        return (
            f"Compiled programs are not kept in {folder}: {doubt}. Give another folder with "
            "XDG_CACHE_HOME, or make that one your own (chmod go-w)."
        )
    if given is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        least = "jax_persistent_cache_min_compile_time_secs"
        if getattr(jax.config, least) == _JAX_KEEPS_FROM:
            jax.config.update(least, 0)
    return ""


_JAX_KEEPS_FROM = 1.0  # seconds of compiling, unless the user has said otherwise
_begun = False


def begin() -> None:
    """To be called by whatever computes with JAX, first of all: it must not be a forked child.

    At the first call programs are kept on disk from then on, as `use_compilation_cache` does. What
    the user has told JAX of its cache stays as it is, and where there can be none, there is none.

    Raises:
      RuntimeError: see `check_process`.
    """
    global _begun
    check_process()
    if not _begun:
        import jax

        _begun = True
        if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
            with contextlib.suppress(DataError):
                use_compilation_cache()


def _others_may_write(folder: Path) -> str:
    """Why somebody else may change what is in the folder, or put another in its place; '': nobody.

    The folders around it may be root's, and writable for all where they are sticky, as /tmp is.
    """
    for place in dict.fromkeys((folder, folder.resolve())):
        for around in (place, *place.absolute().parents):
            found, inner = around.stat(), around == place
            if found.st_uid != os.geteuid() and (inner or found.st_uid != 0):
                return f"{around} belongs to another user"
            others = found.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
            if not inner and (found.st_mode & stat.S_ISVTX or _is_own_group(found.st_gid)):
                others &= stat.S_IWOTH * (not found.st_mode & stat.S_ISVTX)
            if others:
                return f"others may write to {around}"
    return ""


def _is_own_group(number: int) -> bool:
    """Whether the group is the user's private one, which has the user's name."""
    try:
        return grp.getgrgid(number).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False


_started = False  # whether this process, or one that it was forked off from, has put JAX to work
_forked = False  # whether it was forked off from one that had


def _note_fork() -> None:
    global _forked
    _forked = _started


os.register_at_fork(after_in_child=_note_fork)


def check_process() -> None:
    """To be called before JAX is put to work, which then runs threads that a fork does not copy.

    Raises:
      RuntimeError: this is a child of `fork`, and its parent has called this, too. The locks that
        the threads of JAX held stay locked: it would wait forever.
    """
    global _started
    _started = True
    if _forked:
        raise RuntimeError(
            "This process was forked off from one that had started JAX, whose threads a fork does "
            "not copy: it would wait forever. Start processes anew instead: joblib's default "
            "backend 'loky', or multiprocessing.get_context('spawn')."
        )


def start_program() -> None:
    """To be called first by a program: streams that take any text, and no window system.

    A stream that the caller has closed becomes one to nowhere, lest a file of results take its
    number and receive what libraries print.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        getattr(sys, name).reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"
    warnings.showwarning = _show_warning  # type: ignore[assignment]


def _show_warning(text: Warning | str, *_: Any, **__: Any) -> None:
    write_line(f"Warning: {message(str(text))}", sys.stderr)


def write_line(text: str, stream: Any) -> None:
    """Writes lines at once; where nobody reads them, or the disk is full, that is no error."""
    try:
        stream.write(shown(text) + "\n")
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class LiveOutput:
    """One output that is redrawn: a picture in a notebook, elsewhere a line of text each time."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, png: Callable[[], bytes], text: str) -> None:
        """Shows the picture in the place of the last one, or prints the text.

        Args:
          png: draws it, where it can be seen: in Jupyter, VS Code, Colab.
          text: one line that says the same.
        """
        ipython = sys.modules.get("IPython")
        if not hasattr(ipython and ipython.get_ipython(), "kernel"):  # nor has one in a terminal
            write_line(text, sys.stdout)
            return
        from IPython.display import DisplayHandle

        content = {"image/png": base64.b64encode(png()).decode(), "text/plain": text}
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(content, raw=True)
        else:
            self._handle.update(content, raw=True)


def program() -> str:
    """What begins an error message: 'main.py', or 'softmax_jax' for its commands."""
    path = Path(sys.argv[0])
    is_command = path.name == "softmax-jax" or path.parts[-2:] == ("softmax_jax", "__main__.py")
    return "softmax_jax" if is_command else "main.py"


def import_jax() -> None:
    """Imports JAX, which reads its environment variables meanwhile.

    Raises:
      JobError: it cannot be imported (exit code 2).
    """
    try:
        import jax  # noqa: F401
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise JobError(
            f"JAX does not start: {reason}. Check the environment variables that begin with JAX_, "
            "and its installation."
        ) from error


def guarded(program: str, command: Callable[[], int], folder: Path | None = None) -> int:
    """The exit code of a command whose every exception becomes one message on standard error.

    Args:
      program: begins the message.
      command: what to run.
      folder: where the traceback of an error that nobody foresaw is written; None: where temporary
        files are.
    """
    try:
        return command()
    except (JobError, DataError) as error:
        write_line(f"{program}: {error}", sys.stderr)
        return getattr(error, "exit_code", USAGE)
    except KeyboardInterrupt:
        write_line(f"{program}: interrupted.", sys.stderr)
        return INTERRUPTED
    except Exception as error:
        return unforeseen(program, error, folder)


def unforeseen(program: str, error: BaseException, folder: Path | None = None) -> int:
    """The last line of defence: one message that asks to report the error; returns the exit code.

    What did not fit into the memory is not unforeseen, and is the fault of what was asked for.
    """
    what = f"{type(error).__name__}: {cut(' '.join(str(error).split()), 300)}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        remedy = "Ask for less at a time, or use a machine with more."
        write_line(f"{program}: the memory does not suffice ({what}). {remedy}", sys.stderr)
        return USAGE
    place = keep_traceback(error, folder)
    where = f"The traceback is in {place}" if place else "It could not be written down"
    write_line(
        f"{program}: an error that nobody foresaw, in this program and not in what you gave it: "
        f"{what}. {where}: please report it.",
        sys.stderr,
    )
    return UNFORESEEN


ERROR_FILE = "error.txt"  # of a work folder


def keep_traceback(error: BaseException, folder: Path | None) -> Path | None:
    """Writes it into the folder, or else among the temporary files; None: it cannot be written."""
    content = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace")
    if folder is not None:
        with contextlib.suppress(OSError), replacing(folder / ERROR_FILE) as file:
            file.write(content)
            return folder / ERROR_FILE
    with contextlib.suppress(OSError):
        number, name = tempfile.mkstemp(".txt", "softmax_jax_")
        with open(number, "wb") as file:
            file.write(content)
        return Path(name)
    return None
