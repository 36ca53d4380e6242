"""Whether this machine's NPU can be used: driver, device nodes, rights (behaviour §4).  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rkvisor.worker.checks.finding import Finding, problem

#: The oldest driver that RKLLM works with (behaviour §4).
NEEDED_DRIVER = (0, 9, 8)
_DEVICE = "RKLLM_DEVICE_ERROR"
_RULE = "install etc/70-rknpu.rules (docs/howto/board.md) and join the group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node.  driver: the kernel's, "" if not told.  group: its owner.  is_usable: by this process."""

    path: str
    driver: str = ""
    group: str = ""
    is_usable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Npu:
    """What the kernel shows.

    driver: its version, None without one.  nodes: /dev/dri/renderD*, /dev/rknpu.  heaps: /dev/dma_heap/*.
    chips: what the device tree is compatible with, most exact first; empty where it cannot be read.
    """

    driver: str | None = None
    nodes: tuple[Node, ...] = ()
    heaps: tuple[Node, ...] = ()
    chips: tuple[str, ...] = ()

    @property
    def own_nodes(self) -> tuple[Node, ...]:
        """The nodes that are the NPU's, or may be: a render node of another driver is a graphics card's."""
        return tuple(node for node in self.nodes if node.driver.lower() in ("", "rknpu"))


def version_of(text: str) -> tuple[int, ...] | None:
    """The numbers in *text*, "RKNPU driver: v0.9.8" or "0.9.8"; None where there are none."""
    found = re.search(r"(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def check(npu: Npu, machine: str) -> list[Finding]:
    """Findings about the NPU, the good ones too.  machine: ``uname -m``."""
    if machine != "aarch64":
        text = f"Rockchip's runtime is built for aarch64; this machine is {machine}"
        return [problem("machine", text, 'set runtime = "llama" or "sim" here', _DEVICE)]
    return [*_driver(npu), *_nodes(npu), *_device_tree(npu)]


def _driver(npu: Npu) -> Iterator[Finding]:
    needed = ".".join(map(str, NEEDED_DRIVER))
    if npu.driver is None:
        if not npu.own_nodes:
            remedy = "boot Rockchip's kernel with CONFIG_ROCKCHIP_RKNPU; `dmesg | grep -i rknpu` tells"
            yield problem("driver", "no rknpu driver is loaded", remedy, _DEVICE)
        else:
            text = f"the version of rknpu is not readable; RKLLM needs {needed} or newer"
            yield Finding(
                about="driver", level="note", text=text, remedy="as root: cat /sys/kernel/debug/rknpu/version"
            )
        return
    found = version_of(npu.driver)
    if found is None:
        yield Finding(about="driver", level="warning", text=f"the version of rknpu, {npu.driver!r}, cannot be read")
    elif found < NEEDED_DRIVER:
        remedy = "update the kernel of the board; Rockchip's rknn-llm repository has the driver's sources"
        yield problem("driver", f"rknpu {npu.driver} is too old: RKLLM needs {needed} or newer", remedy, _DEVICE)
    else:
        yield Finding(about="driver", level="ok", text=f"rknpu {npu.driver}")


def _nodes(npu: Npu) -> Iterator[Finding]:
    own = npu.own_nodes
    if not own:
        text = "neither /dev/dri/renderD* nor /dev/rknpu is there"
        yield problem("devices", text, "load the driver; in a container, pass the devices in", _DEVICE)
        return
    usable = [node for node in own if node.is_usable]
    if not usable:
        groups = ", ".join(sorted({node.group for node in own if node.group}))
        text = f"no right to open {', '.join(node.path for node in own)}" + (f" (group {groups})" if groups else "")
        yield problem("devices", text, _RULE, _DEVICE)
        return
    yield Finding(about="devices", level="ok", text=", ".join(node.path for node in usable))
    if any(node.path.endswith("rknpu") for node in usable) and len(usable) == len(own):
        if npu.heaps and not any(heap.is_usable for heap in npu.heaps):
            yield problem("dma heaps", "no right to open any of /dev/dma_heap/*", _RULE, _DEVICE)
        elif not npu.heaps and not any("renderD" in node.path for node in usable):
            text = "there is no /dev/dma_heap/*, from which /dev/rknpu takes its buffers"
            yield problem("dma heaps", text, "boot a kernel with CONFIG_DMABUF_HEAPS", _DEVICE)


def _device_tree(npu: Npu) -> Iterator[Finding]:
    if npu.chips:
        yield Finding(about="chip", level="ok", text=", ".join(npu.chips))
    else:
        text = "/proc/device-tree/compatible cannot be read; the runtime tells the chip by it"
        yield Finding(about="chip", level="warning", text=text, remedy="in a container, mount it")


def platform_mismatch(path: str, npu: Npu) -> Finding | None:
    """A warning where the name of a model's file names another chip than this board's: converted models fit one."""
    named = re.search(r"rk(\d{4})", path.rpartition("/")[2].lower())
    chips = {one for chip in npu.chips for one in re.findall(r"rk\d{4}", chip.lower())}
    if named is None or not chips or f"rk{named[1]}" in chips:
        return None
    text = f"its name says rk{named[1]}; this board is {', '.join(sorted(chips))}"
    remedy = "convert it with rkllm-toolkit's target_platform set to this chip"
    return Finding(about="platform", level="warning", text=text, remedy=remedy, code=_DEVICE)
