"""What a command line says about a configuration: `key.path=value`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from mutual_env.errors import ConfigError, UnknownNameError
from mutual_env.options import problem

_NAMED = ("policies", "teachers", "seats")  # whose keys are names that the configuration gives


def forget_options(config: DictConfig, key: str) -> None:
    """Options given as a whole are all there are: those of the file may be another strategy's or learner's."""
    *where, name = key.split(".")
    if name in ("options", "exchange_options"):
        try:
            held = OmegaConf.select(config, ".".join(where)) if where else config
        except OmegaConfBaseException:
            return  # a mistyped path, which the update says better
        if OmegaConf.is_dict(held) and name in held:
            held[name] = {}


def parsed(override: str) -> tuple[str, Any]:
    """`key=value`, the value as it is written: what it refers to (`${seed}`) stands in the whole configuration."""
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"override {override!r} must have the form key.path=value")
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        assert isinstance(content, dict)
        return key, content["value"]
    except (YAMLError, OmegaConfBaseException, UnicodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(
            f"the value of override {override!r} is not YAML: {problem}; quote it for the shell"
        ) from error


def check_names(config: DictConfig, key: str) -> None:
    """A single setting of a policy that is nowhere else is meant for another: it would be one more, of defaults."""
    parts = key.split(".")
    at = int(parts[0] == "base")  # of a suite
    if parts[at : at + 1] == [] or parts[at] not in _NAMED or parts[at + 2 : at + 3] in ([], ["learner"]):
        return
    held = OmegaConf.select(config, ".".join(parts[: at + 1]))
    name = parts[at + 1]
    if OmegaConf.is_dict(held) and held and name not in held:
        where = ".".join(parts[: at + 2])
        new = f"a new one begins with {where}.learner=NAME"
        raise ConfigError(f"{UnknownNameError.of(parts[at], name, map(str, held))} ({new})")


def update(config: DictConfig, key: str, value: Any, where: str) -> None:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    head, *rest = key.split(".")
    for part in reversed(rest):  # nested, because a dotted path cannot make a section that is not there yet
        value = {part: value}
    try:
        OmegaConf.update(config, head, value, merge=True, force_add=False)
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise ConfigError(f"{where}: {_unknown_key(error, key)}") from error
    except OmegaConfBaseException as error:
        said, at = str(error).splitlines()[0], error.full_key or key
        if "is not a subclass of" in said:
            said = f"it is a section: write {at}.KEY=VALUE"
        elif wrong := _wrong({head: value}, OmegaConf.get_type(config), ""):
            raise ConfigError(f"{where}: {wrong}") from error
        raise ConfigError(f"{where}: {at}: {said}") from error


def _wrong(value: Any, hint: Any, at: str) -> str:
    """Which key holds what it cannot hold, and what that must be; "" where nothing is found."""
    inside = get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
    if isinstance(value, Mapping) and get_origin(hint) is dict:
        inside = dict.fromkeys(value, get_args(hint)[1])
    if not (inside and isinstance(value, Mapping)):
        said = problem(value, hint)
        return f"{at} must be {said}" if said else ""
    held = {key: item for key, item in value.items() if key in inside}
    found = (_wrong(item, inside[key], f"{at}.{key}".lstrip(".")) for key, item in held.items())
    return next(filter(None, found), "")


def _unknown_key(error: OmegaConfBaseException, key: str) -> str:
    known = (
        [f.name for f in dataclasses.fields(error.object_type)] if dataclasses.is_dataclass(error.object_type) else []
    )
    near = difflib.get_close_matches(str(error.key), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    *where, name = (full := str(error.full_key or key)).split(".")
    below = next((part for part in ("options", "base") if part in known), "")
    further = f"; below that it is written {'.'.join([*where, below, name])}" if below else ""
    return f"unknown key {full!r}: {hint}{further}"
