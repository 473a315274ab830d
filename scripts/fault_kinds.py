"""The faults that campaigns are to survive: which there are, and how each is done."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from fault_campaigns import FOLDER, Campaign

SUSPEND_SECONDS = 45.0  # longer than Parsl waits for heartbeats
RESUME_SECONDS = 0.3  # between processes that go on
# Filled at once, and enough for a campaign, of which a busy machine makes long logs.
DISK = {"small": "8m", "large": "100m"}
EXPECTED = {  # fault → engines, and what a campaign does after it
    "worker killed": (("parsl", "pool"), "finishes"),
    "worker stopped": (("parsl", "pool"), "finishes"),
    "manager killed": (("parsl",), "finishes"),
    "manager stopped": (("parsl",), "finishes"),
    "interchange killed": (("parsl",), "finishes"),
    "interchange stopped": (("parsl",), "finishes"),
    "all suspended": (("parsl", "pool"), "finishes"),
    "parent killed": (("parsl", "pool"), "continues"),
    "SIGINT": (("parsl", "pool"), "continues"),
    "SIGTERM": (("parsl", "pool"), "continues"),
    "disk full": (("parsl", "pool"), "continues"),
}


def strike(campaign: Campaign, fault: str, out: Path) -> str:
    """Do it; what was done to whom. Empty if the one it is for has ended, or not begun."""
    if fault == "disk full":
        with contextlib.suppress(OSError), (out / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
        return "filled the disk"
    if fault in ("SIGINT", "SIGTERM"):
        number = getattr(signal, fault)
        if fault == "SIGINT":  # as a terminal does, to all in the foreground
            os.killpg(campaign.process.pid, number)
        else:
            os.kill(campaign.process.pid, number)
        return f"sent {fault}"
    if fault == "parent killed":
        campaign.others()
        campaign.process.kill()
        return "killed the campaign"
    role, how = ("worker", "") if fault == "all suspended" else fault.split()
    stop = time.monotonic() + 60  # the moment may be before there is one
    while (process := campaign.find(role)) is None and campaign.process.poll() is None:
        if time.monotonic() > stop:
            return ""
        time.sleep(0.05)
    if process is None:
        return ""
    if fault == "all suspended":
        return suspend_all(campaign)
    with contextlib.suppress(psutil.Error):
        process.kill() if how == "killed" else process.suspend()
        return f"{how} the {role}"
    return ""


def suspend_all(campaign: Campaign) -> str:
    """Suspend all processes and let them go on one after another, as after a laptop's sleep."""
    suspended = []
    for process in (psutil.Process(campaign.process.pid), *campaign.others()):
        with contextlib.suppress(psutil.Error):
            process.suspend()
            suspended.append(process)
    time.sleep(SUSPEND_SECONDS)
    for process in suspended:
        with contextlib.suppress(psutil.Error):
            process.resume()
        time.sleep(RESUME_SECONDS)
    return f"suspended all {len(suspended)} processes"


@contextlib.contextmanager
def results_folder(top: Path, name: str, fault: str) -> Iterator[Path]:
    """A folder for results, for a full disk on a small one of its own."""
    out = top / name / FOLDER
    out.mkdir(parents=True)
    if fault != "disk full":
        yield out
        return
    size = f"size={DISK['small']}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(out)], check=True)
    try:
        yield out
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def enlarge(out: Path) -> None:
    """Make room on the small disk."""
    option = f"remount,size={DISK['large']}"
    subprocess.run(["mount", "-o", option, str(out)], check=True)


def can_mount() -> bool:
    """Whether a small disk can be made here."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True
