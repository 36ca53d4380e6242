"""Contradictions between configured values that are each fine."""

from __future__ import annotations

import math
import os
import posixpath
import re

from rkvisor.protocol.constants import PARAM_MEMBERS
from rkvisor.protocol.limits import MAX_SOCKET_PATH_BYTES
from rkvisor.protocol.nearest import nearest
from rkvisor.supervisor.config.sections import Config, ModelSection
from rkvisor.supervisor.workers.order import Cycle, depths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LOOPBACK = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(?::(.*))?", re.ASCII)
_PORT = re.compile(r"\d{1,5}", re.ASCII)


class ConfigError(Exception):
    """The configuration cannot be used.  The message names the file, the key and the way out."""


def worker_endpoint(config: Config) -> str:
    """Where processes connect: below the run directory, in its private folder."""
    return f"ipc://{config.supervisor.run_dir}/private/worker.sock"


def check(config: Config) -> None:
    """Refuse contradictions; the first one found raises ConfigError."""
    file = config.file
    for name, model in config.models.items():
        where = f"cannot use {file}: [models.{name}]"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: a model's name is 1 to 64 letters, digits, '_', '.' or '-'")
        if name == "all":
            raise ConfigError(f'{where}: rkvisorctl means every worker by "all"; give the model another name')
        if model.faults and model.runtime != "sim":
            raise ConfigError(f'{where}: faults = true needs runtime = "sim", not {model.runtime!r}')
        if model.fallback is not None and (model.fallback == name or model.fallback not in config.models):
            raise ConfigError(f"{where}: fallback = {model.fallback!r} is not another configured model")
        if model.path.startswith("builtin:") and model.runtime != "sim":
            raise ConfigError(f'{where}: path = {model.path!r} needs runtime = "sim"; builtin models are simulated')
        _check_param(model, where)
        if model.chat_template is not None and model.tokenizer is None and model.runtime != "llama":
            text = "chat_template needs a tokenizer beside it: rendered messages go to the runtime as tokens"
            raise ConfigError(f'{where}: {text}; set tokenizer = "tokenizer.json"')
        if model.backoff_initial_s > model.backoff_max_s:
            raise ConfigError(f"{where}: backoff_initial_s is greater than backoff_max_s ({model.backoff_max_s})")
    _check_dependencies(config)
    if posixpath.normpath(config.supervisor.run_dir) == posixpath.normpath(config.supervisor.state_dir):
        raise ConfigError(f"cannot use {file}: [supervisor]: {one_folder(config)}")
    _check_endpoints(config)


def one_folder(config: Config) -> str:
    """The words for run_dir and state_dir that are one folder: each is locked by itself."""
    return f"run_dir and state_dir are one folder, {config.supervisor.run_dir}; give each its own"


def _check_param(model: ModelSection, where: str) -> None:
    for key, value in model.param.items():
        if key not in PARAM_MEMBERS:
            near = nearest(key, PARAM_MEMBERS)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(PARAM_MEMBERS)}"
            raise ConfigError(f"{where}: {key!r} is not a key of param; {hint}")
        if not math.isfinite(value):
            raise ConfigError(f"{where}: param: {key} = {value} must be a finite number")


def _check_dependencies(config: Config) -> None:
    for name, model in config.models.items():
        for other in model.depends_on:
            if other not in config.models:
                near = nearest(other, config.models)
                hint = f"; did you mean {near!r}?" if near else ""
                text = f"depends_on names {other!r}, which is not configured{hint}"
                raise ConfigError(f"cannot use {config.file}: [models.{name}]: {text}")
    try:
        depths({name: model.depends_on for name, model in config.models.items()})
    except Cycle as error:
        raise ConfigError(f"cannot use {config.file}: depends_on goes in a circle: {error}") from error


def _check_endpoints(config: Config) -> None:
    file = config.file
    if not config.listen.clients:
        raise ConfigError(f"cannot use {file}: [listen]: clients is empty; name at least one endpoint")
    if not config.listen.admin.startswith("ipc://"):
        raise ConfigError(f"cannot use {file}: [listen]: admin = {config.listen.admin!r} must be an ipc:// endpoint")
    everything = [*config.listen.clients, config.listen.admin, *config.listen.events, worker_endpoint(config)]
    for one in everything:
        _check_endpoint(one, file)
        if everything.count(one) > 1:
            raise ConfigError(f"cannot use {file}: [listen]: {one} is used twice")


def _check_endpoint(one: str, file: str) -> None:
    if one.startswith("ipc://"):
        path = os.fsencode(one.removeprefix("ipc://"))
        if not path:
            raise ConfigError(f"cannot use {file}: [listen]: {one!r} lacks a socket's path")
        if len(path) > MAX_SOCKET_PATH_BYTES:
            text = f"the socket path of {one} has {len(path)} bytes; the limit is {MAX_SOCKET_PATH_BYTES}"
            raise ConfigError(f"cannot use {file}: {text}; set run_dir or the endpoint to a shorter path")
        return
    if not one.startswith("tcp://"):
        raise ConfigError(f"cannot use {file}: [listen]: {one!r} must begin with ipc:// or tcp://")
    loopback = _LOOPBACK.fullmatch(one)
    if loopback is None:
        text = "TCP is served on loopback only (tcp://127.0.0.1:PORT) until CURVE keys can be configured"
        raise ConfigError(f"cannot use {file}: [listen]: {one!r}: {text}")
    if not loopback[2]:
        raise ConfigError(f"cannot use {file}: [listen]: {one!r} lacks a port: write tcp://{loopback[1]}:PORT")
    if loopback[2] != "*" and (not _PORT.fullmatch(loopback[2]) or not 0 < int(loopback[2]) < 65536):
        raise ConfigError(f"cannot use {file}: [listen]: {one!r}: a port is a number from 1 to 65535")
