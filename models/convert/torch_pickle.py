"""Reads the pickle in a PyTorch checkpoint as data: dictionaries, plain values and the description of tensors.

A pickle is a program for a small machine that can import and call anything. This machine has no import and no call: it
knows the instructions that ``torch.save`` uses, the names of storages and eight more, and refuses everything else.
``pickle.Unpickler`` with a ``find_class`` of our own would refuse the same names, but reserves memory as the file tells
it to.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from models.convert.refusal import shown
from models.convert.tensor import MOST_AXES, Shape

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_DICTIONARY = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_SIZE = "torch Size"
_SCALARS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_PARTS_OF_SCALARS = ("numpy dtype", "_codecs encode")
"""A number of numpy's, such as a learning rate or a best score, is written with its type and its bytes as text."""
_SIZED = (tuple, list, dict, str)
_KEYS = (str, int, float, bool, type(None))
_MOST_PARTS = 1_000_000
"""Instructions done, and parts of what they make: ViT-H-14 with its optimizer has some 100,000."""
_LARGEST_KEY = 2**48
"""Larger ones could be chosen so that a dictionary takes hours to fill."""


class NotReadable(ValueError):
    """The pickle is damaged; the message says how, without naming the file."""


class HoldsCode(NotReadable):
    """The pickle asks for something that is neither a tensor nor a plain value."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat run of numbers in the archive."""

    key: str
    """The member is called ``data/<key>``."""
    dtype: str
    count: int
    """Numbers."""


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A view of a storage, as the file describes it: nothing of it was checked against the storage."""

    storage: Storage
    offset: int
    """Numbers of the storage before the first."""
    shape: Shape
    strides: Shape


@dataclass(frozen=True, slots=True)
class _Name:
    """Something that the pickle would import."""

    name: str
    """Module and name, with a space between."""


@dataclass(frozen=True, slots=True)
class _PartOfScalar:
    """The type or the bytes of a number of numpy's."""


_Stack: TypeAlias = "list[Any]"


def read_pickle(content: bytes) -> Any:
    """Return what the pickle describes: dict, list, tuple, str, int, float, bool, None and ``PickledTensor``.

    Raises ``HoldsCode`` where it needs more than that, ``NotReadable`` where it is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                return _plain(machine.stack.pop())
            machine.step(opcode.name, argument)
    except NotReadable:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise NotReadable(f"its list of tensors is damaged ({type(error).__name__})") from error
    raise NotReadable("its list of tensors is cut off")


class _Machine:
    """The stack and the memory of one pickle."""

    def __init__(self) -> None:
        self.stack: _Stack = []
        self._parts = 0
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Do one instruction."""
        self._count(1)
        if opcode in _VALUES:
            self.stack.append(_VALUES[opcode](argument))
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memory[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self._memory[len(self._memory)] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            self.stack.append(self._memory[argument])
        elif opcode == "MARK":
            self._marks.append(len(self.stack))
        elif opcode in _FROM_MARK:
            _FROM_MARK[opcode](self.stack, self._since_mark())
        elif opcode in _FROM_STACK:
            count, make = _FROM_STACK[opcode]
            if len(self.stack) - count < (self._marks[-1] if self._marks else 0):
                raise NotReadable("its list of tensors is damaged")
            taken = self.stack[len(self.stack) - count :]
            del self.stack[len(self.stack) - count :]
            if opcode == "REDUCE":
                self._count(_parts_of(taken[1]))
            self.stack.append(make(*taken))
        elif opcode not in ("PROTO", "FRAME"):
            raise HoldsCode(f"it holds more than tensors and plain values ({opcode})")

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > _MOST_PARTS:
            raise NotReadable(f"its list of tensors has more than {_MOST_PARTS:,} parts")

    def _since_mark(self) -> _Stack:
        mark = self._marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken


def _import(module: Any, name: Any) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise NotReadable("a name is damaged")
    wanted = f"{module} {name}"
    is_storage = module in ("torch", "torch.storage") and name in _STORAGES
    if not is_storage and wanted not in (_DICTIONARY, _TENSOR, _PARAMETER, _SIZE, *_SCALARS, *_PARTS_OF_SCALARS):
        raise HoldsCode(f"it asks for {shown(wanted.replace(' ', '.'))}, and nothing of it was run")
    return _Name(wanted)


def _call(name: Any, arguments: Any) -> Any:
    """Return what the call of one of the names stands for: None for a number of numpy's, which is of no use here."""
    if not isinstance(name, _Name) or not isinstance(arguments, tuple):
        raise HoldsCode("it calls something that is no name of PyTorch's")
    if name.name == _DICTIONARY:
        pairs = arguments[0] if arguments else []
        return _set_items({}, [part for key, value in pairs for part in (key, value)])
    if name.name == _TENSOR:
        storage, offset, shape, strides = arguments[:4]
        return _tensor(storage, offset, shape, strides)
    if name.name == _PARAMETER and isinstance(arguments[0], PickledTensor):
        return arguments[0]
    if name.name == _SIZE:
        return tuple(arguments[0])
    if name.name in _PARTS_OF_SCALARS:
        return _PartOfScalar()
    if name.name in _SCALARS:
        return None
    raise HoldsCode(f"it calls {name.name.replace(' ', '.')!r}")


def _parts_of(arguments: Any) -> int:
    """Return how many parts a call copies: those of its first argument, which may be kept and given again."""
    return len(arguments[0]) if isinstance(arguments, tuple) and arguments and isinstance(arguments[0], _SIZED) else 0


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> PickledTensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise NotReadable("a tensor's description is damaged")
    if len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise NotReadable("a tensor's shape and strides do not fit together")
    if not all(type(one) is int and 0 <= one < 2**48 for one in (offset, *shape, *strides)):
        raise NotReadable("a tensor's offset, shape or strides are no sizes")
    return PickledTensor(storage, offset, shape, strides)


def _storage(description: Any) -> Storage:
    if not isinstance(description, tuple) or len(description) != 5 or description[0] != "storage":
        raise NotReadable("a storage's description is damaged")
    _, kind, key, _, count = description
    dtype = _STORAGES.get(kind.name.rpartition(" ")[2]) if isinstance(kind, _Name) else None
    if dtype is None or not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**48:
        raise NotReadable("a storage's description is damaged")
    return Storage(key, dtype, count)


def _build(target: Any, state: Any) -> Any:
    """Return ``target``: what ``state`` adds is of no use here (to a state dict the versions of its modules, to a type
    its order of bytes).
    """
    if not isinstance(target, (dict, _PartOfScalar)):
        raise HoldsCode("it sets the state of something that is no dictionary")
    return target


def _set_items(target: Any, items: _Stack) -> Any:
    if not isinstance(target, dict) or len(items) % 2:
        raise NotReadable("a dictionary is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, _KEYS):
            raise NotReadable(f"a dictionary has a key that is a {type(key).__name__}")
        if isinstance(key, int) and abs(key) > _LARGEST_KEY:
            raise NotReadable("a dictionary has a key that is a huge number")
        target[key] = _plain(value)
    return target


def _extend(target: Any, items: _Stack) -> Any:
    if not isinstance(target, list):
        raise NotReadable("a list is damaged")
    target.extend(map(_plain, items))
    return target


def _plain(value: Any) -> Any:
    if isinstance(value, (_Name, Storage, _PartOfScalar)):
        raise HoldsCode("it keeps a name of PyTorch's as a value")
    return value


_VALUES: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        lambda it: it,
    ),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "GLOBAL": lambda it: _import(*it.split(" ", 1)),
}
_FROM_MARK: Mapping[str, Callable[[_Stack, _Stack], Any]] = {
    "TUPLE": lambda stack, taken: stack.append(tuple(taken)),
    "SETITEMS": lambda stack, taken: _set_items(stack[-1], taken),
    "APPENDS": lambda stack, taken: _extend(stack[-1], taken),
}
_FROM_STACK: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "TUPLE1": (1, lambda *taken: taken),
    "TUPLE2": (2, lambda *taken: taken),
    "TUPLE3": (3, lambda *taken: taken),
    "STACK_GLOBAL": (2, _import),
    "REDUCE": (2, _call),
    "BUILD": (2, _build),
    "BINPERSID": (1, _storage),
    "SETITEM": (3, lambda target, key, value: _set_items(target, [key, value])),
    "APPEND": (2, lambda target, item: _extend(target, [item])),
}
