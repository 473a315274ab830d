"""Engines end in time, whatever hangs, and take their processes along."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from parsl import Config
from parsl.executors import HighThroughputExecutor
from parsl.jobs.states import JobState, JobStatus
from parsl.providers import LocalProvider, SlurmProvider

from hippynn_mf.campaign import interchanges, parsl_session, plain_folder, processes
from hippynn_mf.campaign.blocks import BlockKeeper, NoWorkersError
from hippynn_mf.campaign.engines import LocalPool
from hippynn_mf.errors import UserError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

SLEEPER = [sys.executable, "-c", "import time; time.sleep(300)"]
AWKWARD = ["with space", "it's", 'a "quote"', "Läufe", "$HOME", "a{0}b", "semi;colon", "star*"]


def wait_until(condition, seconds=30):
    stop = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.05)
    return found


def is_over(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Processes -------------------------------------------------------------------


def test_marked_processes_are_ended_however_far_they_are():
    # The child of a shell that has ended is nobody's child; a stopped one hears no SIGTERM.
    with processes.guarded() as mark:
        with subprocess.Popen(["bash", "-c", "sleep 300 & echo $!"], stdout=subprocess.PIPE) as p:
            orphan = int(p.stdout.readline())
        stopped = subprocess.Popen(SLEEPER)
        stopped.send_signal(signal.SIGSTOP)
        unmarked = subprocess.Popen(SLEEPER, env=dict(os.environ, **{processes.MARK: "other"}))
        assert processes.end_marked(mark)
        assert is_over(orphan)
        assert stopped.wait(5) == -signal.SIGKILL
        assert unmarked.poll() is None
    unmarked.kill()
    unmarked.wait()
    assert processes.MARK not in os.environ


GUARDED = """
import subprocess, sys, time
from hippynn_mf.campaign import processes
with processes.guarded() as mark:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    print(child.pid, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_guard_ends_what_a_killed_process_leaves(number):
    with subprocess.Popen([sys.executable, "-c", GUARDED], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        parent.send_signal(number)
        parent.wait(10)
        wait_until(lambda: is_over(child))


def test_what_is_stopped_for_long_is_ended_and_said(monkeypatch):
    monkeypatch.setattr(processes, "LOOK_SECONDS", 0.05)
    said = []
    with processes.guarded() as mark, processes.stopped_ended(mark, said.append):
        stopped, awake = subprocess.Popen(SLEEPER), subprocess.Popen(SLEEPER)
        stopped.send_signal(signal.SIGSTOP)
        assert stopped.wait(10) == -signal.SIGKILL
        assert awake.poll() is None
        awake.kill()
        awake.wait()
    assert f"process {stopped.pid} of this campaign has been stopped" in said[0]


def test_what_is_started_with_interrupts_blocked_never_hears_one():
    # At once: Python has not begun, and could neither ignore the signal nor lead a session.
    said = [sys.executable, "-c", "print('alive')"]
    with processes.interrupts_blocked():
        child = subprocess.Popen(said, stdout=subprocess.PIPE)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[0] == b"alive\n"
    assert child.returncode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def blocks_interrupts(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [int(line.split()[1], 16) for line in status.splitlines() if "SigBlk" in line]
    return bool(mask >> (signal.SIGINT - 1) & 1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux")
def test_a_pool_starts_workers_with_interrupts_blocked(tmp_path):
    with LocalPool(1).open(tmp_path) as pool:
        assert blocks_interrupts(pool.submit(nap, 0).result(timeout=60))
        assert not blocks_interrupts(os.getpid())


def workers_here():
    return children("spawn_main")


def children(role):
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if role in " ".join(process.cmdline()):
                found.append(process)
    return found


def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


def test_an_interrupted_pool_ends_with_workers_that_are_stopped(tmp_path):
    workers = []

    def interrupted():
        with LocalPool(2).open(tmp_path) as pool:
            for _ in range(2):
                pool.submit(nap, 300)
            workers.extend(wait_until(lambda: workers_here() if len(workers_here()) == 2 else None))
            workers[0].suspend()
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - start < 10
    assert all(is_over(worker.pid) for worker in workers)


def test_a_killed_worker_breaks_a_pool_that_ends_though_the_other_is_stopped(tmp_path):
    with LocalPool(2).open(tmp_path) as pool:
        futures = [pool.submit(nap, 300) for _ in range(2)]
        workers = wait_until(lambda: found if len(found := workers_here()) == 2 else None)
        workers[0].suspend()
        workers[1].kill()
        assert isinstance(futures[1].exception(timeout=30), BrokenProcessPool)
    assert all(is_over(worker.pid) for worker in workers)


# Parsl -----------------------------------------------------------------------


@pytest.fixture
def known_to_workers(monkeypatch):
    """Let Parsl's workers import this module."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def config_of(run_dir, provider=None):
    executor = HighThroughputExecutor(
        label="here",
        address="127.0.0.1",
        max_workers_per_node=1,
        cores_per_worker=1e-3,
        heartbeat_period=1,
        heartbeat_threshold=5,
        provider=provider or LocalProvider(
            init_blocks=1, max_blocks=1,
            worker_init=f"export PATH={os.path.dirname(sys.executable)}:$PATH",
        ),
    )  # fmt: skip
    return Config([executor], run_dir=str(run_dir), strategy="none", usage_tracking=0)


@pytest.mark.parametrize("name", AWKWARD)
def test_parsl_knows_its_folder_by_a_plain_path(tmp_path, name):
    folder = tmp_path / name / "parsl"
    config = config_of(folder)
    with plain_folder.plain_folder(config) as links:
        assert plain_folder.PLAIN_PATH.fullmatch(config.run_dir)
        (link,) = links
        assert link.resolve() == folder.resolve()
    assert not link.parent.exists()
    assert folder.is_dir()


def test_a_plain_path_stays_as_it_is(tmp_path):
    config = config_of(tmp_path / "parsl")
    with plain_folder.plain_folder(config) as links:
        assert links == []
    assert config.run_dir == str(tmp_path / "parsl")


def test_a_queue_is_not_given_a_path_that_parsl_does_not_quote(tmp_path):
    config = config_of(tmp_path / "with space", SlurmProvider())
    with (
        pytest.raises(UserError, match=r"run_dir is '.*with space'.*absolute `run_dir`"),
        plain_folder.plain_folder(config),
    ):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_threads_of_parsl_print_nothing_when_the_disk_is_full(capsys):
    logger, handler = logging.getLogger("parsl"), logging.FileHandler("/dev/full")
    try:
        with parsl_session._quiet_logging():
            logger.addHandler(handler)
            logger.error("while Parsl is there")
        logger.error("a thread that was left")
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
    assert capsys.readouterr().err == ""
    assert logging.raiseExceptions


def fake_executor(**values):
    failures = []

    def fail_all(error):
        executor.bad_state_is_set = True
        failures.append(error)

    executor = SimpleNamespace(
        bad_state_is_set=False,
        set_bad_state_and_fail_all=fail_all,
        failures=failures,
        command_client=SimpleNamespace(ok=True),
        interchange_proc=SimpleNamespace(pid=7, returncode=None, poll=lambda: None),
        **values,
    )
    return executor


def test_a_lost_interchange_fails_all_tasks_with_the_reason(monkeypatch, caplog):
    monkeypatch.setattr(interchanges, "LOOK_SECONDS", 0.02)
    executor = fake_executor()
    with interchanges.interchanges_watched([executor]):
        time.sleep(0.1)
        assert not executor.failures
        executor.interchange_proc.returncode = -9
        executor.interchange_proc.poll = lambda: -9
        wait_until(lambda: executor.failures)
    (error,) = executor.failures
    assert isinstance(error, BrokenExecutor)
    assert "its interchange (process 7) has ended by signal 9" in str(error)
    assert "it is started again" in caplog.text


def test_an_interchange_that_does_not_answer_is_lost(monkeypatch):
    executor = fake_executor()
    assert interchanges.lost_interchange([executor]) is None
    executor.command_client.ok = False
    assert "has not answered for 10 s" in interchanges.lost_interchange([executor])


def test_closing_does_not_wait_for_parsl_for_ever(monkeypatch):
    monkeypatch.setattr(parsl_session, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(parsl_session, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(parsl_session, "is_abandoned", False)
    cancelled, hangs = [], threading.Event()
    kernel = SimpleNamespace(cleanup_called=False)

    def cleanup():
        kernel.cleanup_called = True
        hangs.wait(60)

    kernel.cleanup = cleanup
    executor = fake_executor(
        job_ids_to_block={"12": "0"}, provider=SimpleNamespace(cancel=cancelled.extend)
    )
    with processes.guarded() as mark:
        left = subprocess.Popen(SLEEPER)
        start = time.monotonic()
        parsl_session._close(kernel, [executor], mark, is_whole=True)
        assert time.monotonic() - start < 3
        assert left.wait(1) == -signal.SIGKILL
    hangs.set()
    assert cancelled == ["12"]
    assert executor.failures
    assert parsl_session.is_abandoned


def test_parsl_runs_in_an_awkward_folder_and_its_interchange_hears_no_interrupt(
    tmp_path, known_to_workers
):
    out = tmp_path / 'Läufe & "more" $1'
    with parsl_session.parsl_pool(lambda: config_of(out)) as pool:
        worker = pool.submit(nap, 0).result(timeout=120)
        (interchange,) = children("interchange")
        assert os.getsid(interchange.pid) == interchange.pid != os.getsid(0)
        if os.path.exists("/proc/self/status"):
            assert blocks_interrupts(interchange.pid)
    assert is_over(worker)
    assert is_over(interchange.pid)
    assert (out / "000" / "parsl.log").exists()
    assert not parsl_session.is_abandoned


def test_a_killed_interchange_ends_the_tasks_of_parsl(tmp_path, known_to_workers):
    with parsl_session.parsl_pool(lambda: config_of(tmp_path)) as pool:
        worker = pool.submit(nap, 0).result(timeout=120)
        future: Future[int] = pool.submit(nap, 300)
        (interchange,) = children("interchange")
        interchange.kill()
        start = time.monotonic()
        error = future.exception(timeout=60)
        assert time.monotonic() - start < 60
        assert f"(process {interchange.pid}) has ended by signal 9" in str(error)
        with pytest.raises(BrokenExecutor):
            pool.submit(nap, 0)
    assert is_over(worker)


def losing_its_interchange(run_dir):
    config = config_of(run_dir)
    for executor in config.executors:
        executor.interchange_launch_cmd = ["bash", "-c", "kill -9 $$"]
    return config


# In a process of its own: what Parsl leaves of a start that failed is nothing to wait for.
LOST_AT_START = """
import sys
from test_stopping import config_of, losing_its_interchange, nap
from hippynn_mf.campaign.parsl_session import parsl_pool
from hippynn_mf.cli.stopping import end_process
from hippynn_mf.errors import UserError

made = []
def make_config():
    make = losing_its_interchange if len(made) < int(sys.argv[2]) else config_of
    made.append(make(f"{sys.argv[1]}/{len(made)}"))
    return made[-1]

try:
    with parsl_pool(make_config) as pool:
        pool.submit(nap, 0).result(timeout=200)
except UserError as error:
    print(error)
print(f"{len(made)} starts")
end_process(0, in_order=False)
"""


@pytest.mark.parametrize("n_lost", [1, parsl_session.MAX_STARTS])
def test_an_interchange_that_is_lost_at_the_start_is_replaced(tmp_path, known_to_workers, n_lost):
    done = subprocess.run(
        [sys.executable, "-c", LOST_AT_START, str(tmp_path), str(n_lost)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    is_final = n_lost == parsl_session.MAX_STARTS
    assert done.stderr.count("has ended by signal 9; it is started again") == (2 if is_final else 1)
    assert "Traceback" not in done.stderr
    assert f"{3 if is_final else 2} starts" in done.stdout
    assert ("Parsl did not start, 3 times: its interchange" in done.stdout) == is_final


# Blocks of Parsl's workers -----------------------------------------------------


def with_parents(pid, n):
    """A process and so many of its parents."""
    found = [psutil.Process(pid)]
    for _ in range(n):
        found.append(found[-1].parent())
    return found


def suspend(processes_there):
    for process in processes_there:
        process.suspend()
    time.sleep(8)  # longer than the threshold of heartbeats
    for process in processes_there:
        process.resume()


def lose(what, worker, interchange):
    # A worker's parents: the manager, the launcher's shell, the block's.
    _, manager, launcher, block = with_parents(worker, 3)
    assert "process_worker_pool" in " ".join(manager.cmdline())
    if what == "manager ends":
        manager.terminate()
    elif what == "manager killed":
        manager.kill()
    elif what == "manager and worker killed":
        manager.kill()
        psutil.Process(worker).kill()
    elif what == "block killed":
        for process in (block, launcher, manager):
            process.kill()
    else:
        suspend([interchange, block, launcher, manager, psutil.Process(worker)])


@pytest.mark.slow  # half a minute each, which the heartbeats take
@pytest.mark.parametrize(
    "what",
    [
        "manager ends",
        "manager killed",
        "manager and worker killed",
        "block killed",
        "all suspended",
    ],
)
def test_workers_of_parsl_that_are_gone_are_requested_again(
    tmp_path, known_to_workers, caplog, what
):
    with parsl_session.parsl_pool(lambda: config_of(tmp_path)) as pool:
        worker = pool.submit(nap, 0).result(timeout=120)
        (interchange,) = children("interchange")
        running, waiting = pool.submit(nap, 300), pool.submit(nap, 0)
        time.sleep(1)  # so that it has begun
        lose(what, worker, interchange)
        assert type(running.exception(timeout=120)).__name__ in ("ManagerLost", "WorkerLost")
        assert waiting.result(timeout=120) != worker
        assert interchange.is_running()
    assert "Parsl is lost" not in caplog.text
    assert caplog.text.count("1 block of workers requested again") == 1


@pytest.mark.slow
def test_a_manager_that_cannot_start_ends_all_after_three_times(tmp_path):
    provider = LocalProvider(init_blocks=1, max_blocks=1, worker_init="export PATH=/usr/bin:/bin")
    with parsl_session.parsl_pool(lambda: config_of(tmp_path, provider)) as pool:
        futures = [pool.submit(nap, 0) for _ in range(2)]
        error = futures[0].exception(timeout=120)
        assert isinstance(error, NoWorkersError)
        assert "3 blocks of workers in a row ended before they took a run" in str(error)
        assert "process_worker_pool.py: command not found" in str(error)
        assert str(tmp_path) in str(error)
        assert "the same command continues" in str(error)
        assert futures[1].exception(timeout=10) is error
        wait_until(lambda: isinstance(problem_of_submitting(pool), NoWorkersError))


def problem_of_submitting(pool):
    try:
        return pool.submit(nap, 0).exception(timeout=30)
    except UserError as error:
        return error


class FakeBlocks:
    """An executor of Parsl whose blocks, managers and tasks a test sets."""

    label, run_dir, heartbeat_threshold = "planted", "logs", 20

    def __init__(self, init_blocks=1, max_blocks=1):
        self.provider = SimpleNamespace(
            init_blocks=init_blocks,
            max_blocks=max_blocks,
            cancel=self.cancel,
            status_polling_interval=5,
        )
        self.tasks = {0: Future()}
        self.bad_state_is_set = False
        self.blocks_to_job_id = {}
        self.status, self.history, self.managers, self.said = {}, [], [], []
        self.n_cancelled = 0
        self.keeper = BlockKeeper(5, self.said.append)

    def outstanding(self):
        return len(self.tasks)

    def connected_managers(self):
        return [{"block_id": block, "tasks": n} for block, n in self.managers]

    def connected_blocks(self):
        return self.history

    def cancel(self, jobs):
        self.n_cancelled += 1
        for job in jobs:
            self.status[job.removeprefix("job-")] = JobStatus(JobState.CANCELLED)

    def scale_out_facade(self, n):
        for _ in range(n):
            self.begin(JobState.PENDING)

    def set_bad_state_and_fail_all(self, error):
        self.bad_state_is_set = True

    def begin(self, state):
        block = str(len(self.status))
        self.status[block] = JobStatus(state)
        self.blocks_to_job_id[block] = f"job-{block}"
        return block

    def connect(self, block, n_tasks):
        self.status[block] = JobStatus(JobState.RUNNING)
        self.history.append(block)
        self.managers.append((block, n_tasks))

    def end(self, block, state):
        self.status[block] = JobStatus(state)
        self.managers = [each for each in self.managers if each[0] != block]

    def look(self, n=1):
        for _ in range(n):
            self.keeper(self, self.status)


def test_a_block_that_waits_in_a_queue_is_waited_for():
    blocks = FakeBlocks(init_blocks=2, max_blocks=4)
    blocks.begin(JobState.PENDING)
    blocks.begin(JobState.HELD)
    blocks.look(100_000)
    assert len(blocks.status) == 2
    assert not blocks.said


@pytest.mark.parametrize("state", [JobState.TIMEOUT, JobState.COMPLETED, JobState.FAILED])
def test_jobs_that_end_after_work_are_replaced_as_often_as_they_end(state):
    blocks = FakeBlocks()
    block = blocks.begin(JobState.PENDING)
    for _ in range(20):  # each of a day
        blocks.connect(block, n_tasks=1)
        blocks.look()
        blocks.end(block, state)
        blocks.look()  # Parsl's strategy would act
        assert len(blocks.said) == int(block)
        blocks.look()
        block = str(int(block) + 1)
        assert blocks.status[block].state == JobState.PENDING
        assert len(blocks.status) == int(block) + 1
    assert blocks.said[0] == (
        "Parsl has no worker (planted) while runs wait; 1 block of workers requested again"
    )
    assert not blocks.bad_state_is_set


def test_as_many_blocks_are_requested_as_at_the_start_within_the_limit():
    blocks = FakeBlocks(init_blocks=5, max_blocks=3)
    blocks.end(blocks.begin(JobState.RUNNING), JobState.COMPLETED)
    blocks.look(2)
    assert len(blocks.status) == 4
    without_any = FakeBlocks(init_blocks=0)
    without_any.look(2)
    assert len(without_any.status) == 1


def test_nothing_is_requested_where_nothing_waits_or_a_manager_is_there():
    blocks = FakeBlocks()
    block = blocks.begin(JobState.RUNNING)
    blocks.connect(block, n_tasks=0)
    blocks.look(1000)
    blocks.tasks.clear()
    blocks.end(block, JobState.COMPLETED)
    blocks.look(1000)
    assert len(blocks.status) == 1


def test_blocks_that_fail_in_a_row_end_all_though_a_strategy_requests_others():
    blocks = FakeBlocks(init_blocks=2, max_blocks=8)
    (future,) = blocks.tasks.values()
    block = blocks.begin(JobState.PENDING)
    blocks.connect(block, n_tasks=1)
    blocks.look()
    blocks.end(block, JobState.TIMEOUT)
    blocks.end(blocks.begin(JobState.PENDING), JobState.SCALED_IN)  # on purpose
    for _ in range(5):
        blocks.end(blocks.begin(JobState.PENDING), JobState.MISSING)
        blocks.look()
        assert not blocks.bad_state_is_set
    last = blocks.begin(JobState.PENDING)
    blocks.status[last] = JobStatus(JobState.FAILED, exit_code=77)
    blocks.begin(JobState.PENDING)
    blocks.look()
    assert blocks.bad_state_is_set
    with pytest.raises(NoWorkersError, match=r"6 blocks of workers .* run \(exit code 77\)"):
        future.result(timeout=0)


def test_a_block_that_takes_a_run_forgives_those_that_failed():
    blocks = FakeBlocks()
    for _ in range(5):
        for _ in range(2):
            blocks.end(blocks.begin(JobState.RUNNING), JobState.FAILED)
            blocks.look()
        block = blocks.begin(JobState.RUNNING)
        blocks.connect(block, n_tasks=1)
        blocks.look()
        blocks.end(block, JobState.COMPLETED)
    assert not blocks.bad_state_is_set


def test_a_block_whose_managers_never_connect_is_cancelled_in_the_end_and_replaced():
    blocks = FakeBlocks()
    blocks.begin(JobState.RUNNING)
    blocks.look(121)  # ten minutes: a cluster may load much
    assert not blocks.n_cancelled
    blocks.look(2)
    assert blocks.n_cancelled == 1
    assert [str(job.state) for job in blocks.status.values()] == [
        "JobState.CANCELLED",
        "JobState.PENDING",
    ]


def test_a_block_that_parsl_has_lost_is_cancelled_when_it_should_have_ended():
    blocks = FakeBlocks()
    block = blocks.begin(JobState.RUNNING)
    blocks.connect(block, n_tasks=1)
    blocks.look()
    blocks.managers.clear()  # unknown to the interchange; its processes are there
    blocks.look(6)
    assert not blocks.n_cancelled
    blocks.look(2)
    assert blocks.n_cancelled == 1
    assert blocks.status["1"].state == JobState.PENDING


def test_a_block_that_cannot_be_cancelled_is_not_waited_for_for_ever():
    blocks = FakeBlocks()
    blocks.provider.cancel = lambda jobs: None
    blocks.begin(JobState.RUNNING)
    blocks.look(200)
    assert blocks.bad_state_is_set
    with pytest.raises(NoWorkersError, match="1 blocks without a manager cannot be cancelled"):
        blocks.tasks[0].result(timeout=0)


# The command line ------------------------------------------------------------

STOPPABLE = """
import atexit, sys, threading, time
from hippynn_mf.cli import stopping
stopping.ORDER_SECONDS = float(sys.argv[1])
with stopping.stoppable() as found:
    is_ready = False
    while True:
        try:
            is_ready = is_ready or print("ready", flush=True) is None
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            if sys.argv[2] != "hangs":
                break
if sys.argv[2] == "lingers":
    threading.Thread(target=time.sleep, args=[300]).start()  # Python waits for it
    atexit.register(print, "in order")
if sys.argv[2] == "hangs at its end":
    atexit.register(time.sleep, 300)
stopping.end_process(found.exit_code, in_order=True)
"""

SWALLOWS = """
import sys, time
from hippynn_mf.cli import stopping

class Collected:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)

with stopping.stoppable() as found:
    try:
        if sys.argv[1] == "bare except":
            try:
                print("ready", flush=True)
                time.sleep(60)
            except:
                pass
        else:
            Collected()
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(3 * stopping.AGAIN_SECONDS)  # in order, and not disturbed
        print("interrupted", flush=True)
stopping.end_process(found.exit_code, in_order=True)
"""


def start_stoppable(seconds, how):
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, str(seconds), how], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_interrupt(number, code):
    with start_stoppable(60, "obeys") as process:
        process.send_signal(number)
        assert process.stdout.readline() == b"interrupted\n"
        assert process.wait(10) == code


def test_a_command_that_does_not_obey_is_ended_in_time():
    with start_stoppable(1, "hangs") as process:
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert process.wait(10) == 143
        assert time.monotonic() - start > 0.9


def test_a_second_interrupt_is_immediate():
    with start_stoppable(60, "hangs") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"interrupted\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["bare except", "collected"])
def test_an_interrupt_that_a_library_swallows_is_raised_again_once(how, number):
    with subprocess.Popen(
        [sys.executable, "-c", SWALLOWS, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert (out, errors) == (b"interrupted\n", b"")
    assert process.returncode == 128 + number


def test_a_command_that_was_interrupted_does_not_wait_for_threads():
    with start_stoppable(60, "lingers") as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == b"interrupted\nin order\n"
        assert process.returncode == 130


def test_what_hangs_when_a_process_ends_is_left():
    with start_stoppable(300, "hangs at its end") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_an_interrupt_while_the_command_line_is_imported_leaves_no_traceback():
    # An import that lasts stands for those of the command line.
    code = (
        "import sys, time, types\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'hippynn_mf.cli.main':\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from hippynn_mf.cli.start import main\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == -signal.SIGINT
