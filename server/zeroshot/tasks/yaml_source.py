"""A YAML file as plain values, and the line that each of them stands on."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from zeroshot.errors import PromptFileError

YamlPath = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class YamlSource:
    file: str
    value: dict[str, Any]
    _root: yaml.Node

    @classmethod
    def parse(cls, file: str, content: bytes) -> "YamlSource":
        """Raises PromptFileError where this is not one YAML mapping, or a key stands in it twice."""
        try:
            text = content.decode("utf-8")
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    raise _mistake(file, _line(event), "aliases (*name) are not supported")
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise _mistake(file, 1, "expected a mapping: `name: ...`, `template: ...` and so on")
            _refuse_surrogates(file, root)  # first: the other mistakes are shown with the text they are in
            _refuse_what_is_not_json(file, root)
            return cls(file, loader.construct_document(root), root)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise _mistake(file, line, "the file is not UTF-8") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            raise _mistake(file, mark.line + 1 if mark else 1, f"not valid YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # ValueError: a value YAML takes for a date, or an integer of thousands of digits
            raise _mistake(file, 1, f"not valid YAML: {error}") from None
        except (LookupError, AttributeError, OverflowError):
            # How PyYAML fails on a tag whose value is none of its kind (`!!bool maybe`), and on "\U99999999".
            raise _mistake(file, 1, "not valid YAML: a tag or an escape sequence has a value that can't be") from None

    def mistake(self, path: YamlPath, message: str) -> PromptFileError:
        """An error at a place in the file. Parts of the path that are not in the file are left out of the search."""
        node, line, shown = self._root, 1, []
        for index, part in enumerate(path):
            found = _child(node, part)
            if found is not None:
                line, node = found
            if found is not None or index == len(path) - 1:
                shown.append(str(part))
        where = ".".join(shown)
        return _mistake(self.file, line, f"{where}: {message}" if where else message)


def _mistake(file: str, line: int, message: str) -> PromptFileError:
    return PromptFileError(f"{file}:{line}: {message}")


def _line(item: yaml.Node | yaml.Event) -> int:
    return item.start_mark.line + 1 if item.start_mark else 1


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    """The line to show for a key or an index, and the node under it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return _line(key), value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return _line(node.value[part]), node.value[part]
    return None


_TAG = "tag:yaml.org,2002:"
_NOT_IN_JSON = {
    f"{_TAG}timestamp": 'YAML reads this as a date: "quote" it',
    f"{_TAG}binary": "bytes are not supported: write a text",
    f"{_TAG}set": "sets are not supported: write a list",
}
_KEY_TAGS = frozenset({f"{_TAG}str", f"{_TAG}merge"})


def _refuse_what_is_not_json(file: str, node: yaml.Node) -> None:
    """What JSON has no value for, keys that are no strings, and those that appear twice."""
    if node.tag in _NOT_IN_JSON:
        shown = f"{node.value[:40]}: " if isinstance(node, yaml.ScalarNode) else ""
        raise _mistake(file, _line(node), f"{shown}{_NOT_IN_JSON[node.tag]}")
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _mistake(file, _line(key), "a key must be a name")
            if key.tag not in _KEY_TAGS:
                raise _mistake(file, _line(key), f'{key.value}: a key must be a string: "quote" it')
            if key.value in seen:
                raise _mistake(file, _line(key), f"{key.value}: this key appears twice")
            seen.add(key.value)
            _refuse_what_is_not_json(file, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_what_is_not_json(file, item)


def _refuse_surrogates(file: str, node: yaml.Node) -> None:
    """The escape `\\ud800` makes half a character, which no answer that shows the file could be encoded with."""
    if isinstance(node, yaml.ScalarNode):
        try:
            node.value.encode()
        except UnicodeEncodeError:
            message = "this text has a lone surrogate (\\ud800 to \\udfff), which is not a character"
            raise _mistake(file, _line(node), message) from None
    elif isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for child in item if isinstance(item, tuple) else (item,):
                _refuse_surrogates(file, child)
