"""The variants that engine.py compares: the same work, done in different ways.

Each is built from a :class:`Workload` and the mode, "forward" or "gradient". `prepare`
compiles or captures what the variant needs and is timed apart; `run` does the work once.
`gradient` and, for the engine, `check` serve the comparison with `reference.py` in float64.
"""

import inspect
import math
import shutil
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from workload import DECAY, DT, GAMMA, KICK, TAU_E, TAU_ETA, TAU_I, K

import ssn_estimators
from ssn_estimators import Circuit, simulate
from ssn_estimators.simulation import SCHEMES, reference

CONSTANTS = {"k": K, "gamma": float(GAMMA), "tau_e": TAU_E, "tau_i": TAU_I, "tau_eta": TAU_ETA}


class Unavailable(Exception):
    """A variant cannot run here; the message says why."""


class Variant:
    """What variants share.

    Parameters
    ----------
    workload : Workload
    mode : {"forward", "gradient"}
    device : {"cpu", "cuda"}
    memory_limit : float
        In bytes. Variants that keep a tape or all noise take the trials in chunks below it.
    """

    takes_noise = True  # `gradient` accepts the standard normal numbers of all steps
    block = math.inf  # potentials of a chunk at most, on a CPU

    def __init__(self, workload, mode, device="cpu", memory_limit=math.inf):
        self.workload, self.mode, self.device = workload, mode, device
        *leaves, self.readout = (torch.tensor(x, device=device) for x in workload.arrays())
        self.leaves = [leaf.requires_grad_() for leaf in leaves]
        state = workload.n_networks * workload.columns * workload.n_neurons
        self.n_chunks = divisor(
            workload.n_trials,
            max(
                4 * state * self.copies() / memory_limit,
                state / self.block if device == "cpu" else 0,
            ),
        )

    def copies(self):
        """How many arrays of the size of the potentials are in memory at once."""
        return 0

    @property
    def columns(self):
        """Of a chunk."""
        return self.workload.columns // self.n_chunks

    def prepare(self):
        """Compile or capture."""

    def run(self):
        if self.mode == "gradient":
            return self.gradient()
        with torch.no_grad():
            return self.forward()

    def sync(self):
        if self.device == "cuda":
            torch.cuda.synchronize()


def divisor(n, at_least):
    """Smallest divisor of n that is >= at_least, or n: chunks of one size compile once."""
    return next(i for i in range(1, n + 1) if n % i == 0 and i >= min(at_least, n))


class Engine(Variant):
    """`simulate` on tensors that require a gradient."""

    takes_noise = False
    options = {}
    seed = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        missing = set(self.options) - set(inspect.signature(simulate).parameters)
        if missing:
            raise Unavailable(f"this version's simulate has no {', '.join(missing)}")

    def run(self):
        self.seed += 1  # another run is another draw
        return super().run()

    def settings(self, burn, window):
        return {
            "n_trials": self.workload.n_trials,
            "duration": window * DT,
            "burn_in": burn * DT,
            "dt": DT,
            "solver": self.workload.solver,
            "random_state": self.seed,
            "covariance": False,
            "rates": False,
        } | self.options

    def circuit(self, weights, noise_factor):
        return Circuit(weights, self.workload.n_excitatory, noise_factor, **CONSTANTS)

    def simulate(self, leaves, burn, window, **options):
        *arrays, drive = leaves
        settings = self.settings(burn, window) | options
        return finite(simulate(self.circuit(*arrays), drive, **settings))

    def forward(self):
        w = self.workload
        if w.n_networks == 1:
            return self.simulate(self.leaves, w.burn, w.window).mean
        return [
            self.simulate(each, w.burn, w.window).mean for each in zip(*self.leaves, strict=True)
        ]

    def gradient(self):
        w = self.workload
        if w.n_networks == 1:
            mean = self.simulate(self.leaves, w.burn, w.window).mean
            return torch.autograd.grad((mean * self.readout).sum(), self.leaves)
        gradients = []
        for *leaves, readout in zip(*self.leaves, self.readout, strict=True):
            mean = self.simulate(leaves, w.burn, w.window).mean
            gradients.append(torch.autograd.grad((mean * readout).sum(), leaves))
        return [torch.stack(each) for each in zip(*gradients, strict=True)]

    def check(self):
        """Gradients, and those of the reference under the engine's own noise.

        A run whose window begins two steps earlier records what the window of the first
        starts from.
        """
        if self.device == "cuda":  # kernels make their noise in place, and record none
            raise Unavailable("compared by benchmarks/gpu/measure.py")
        w = self.workload
        record = {"record": ("u", "eta")}
        with torch.no_grad():
            plain = self.simulate(self.leaves, w.burn, w.window, **record)
            early = self.simulate(self.leaves, w.burn - 2, w.window + 2, **record)
        if not torch.allclose(plain.eta, early.eta[2:], atol=1e-5):
            raise Unavailable("the noise depends on where the window begins")
        u, eta = (x.flatten(1, 2).cpu().double() for x in (early.u, early.eta))
        weights, noise_factor, drive = self.leaves
        noise_factor = noise_factor.detach().cpu().double()
        z = torch.linalg.solve(noise_factor, eta.mT).mT
        steady = (weights, noise_factor, repeated(drive, w.n_trials))
        weights, noise_factor, drive = (x.detach().cpu().double() for x in steady)
        circuit = self.circuit(weights, noise_factor)
        slope = reference.velocity(circuit)(u[0], drive + eta[0])
        window = replace(w, burn=0)
        return self.gradient(), reference_gradients(window, self, z[1:], u[1], slope)


class WeakEngine(Engine):
    """The engine with random signs in place of normal increments."""

    options = {"increments": "weak"}


class Tf32Engine(Engine):
    """The engine with products in TF32, which GPUs have."""

    options = {"precision": "tf32"}

    def __init__(self, workload, mode, device="cpu", memory_limit=math.inf):
        if device != "cuda":
            raise Unavailable("TF32 is a GPU's")
        super().__init__(workload, mode, device, memory_limit)


class EngineOfMany(Engine):
    """All networks in one call of `simulate_many`."""

    def __init__(self, workload, mode, device="cpu", memory_limit=math.inf):
        if not hasattr(ssn_estimators, "simulate_many"):
            raise Unavailable("this version has no simulate_many")
        if workload.n_networks == 1:
            raise Unavailable("one network")
        super().__init__(workload, mode, device, memory_limit)

    def forward(self):
        w = self.workload
        weights, noise_factors, drives = (leaf.unbind() for leaf in self.leaves)
        circuits = list(map(self.circuit, weights, noise_factors))
        settings = self.settings(w.burn, w.window)
        simulations = ssn_estimators.simulate_many(circuits, drives, **settings)
        return torch.stack([finite(simulation).mean for simulation in simulations])

    def gradient(self):
        return torch.autograd.grad((self.forward() * self.readout).sum(), self.leaves)


def finite(simulation):
    """The simulation, if no trial diverged: one that did changes the work."""
    if simulation.diverged.any():
        raise RuntimeError("trials diverged")
    return simulation


def make_step(relu, rate, solver):
    """One step as one would write it, for tensors of torch as well as of jax.

    `carried` is what the next step needs from this one: Heun's second forcing, the slope of
    Adams-Bashforth, nothing for Euler.
    """
    scheme = SCHEMES[solver]

    def step(u, z, xi, carried, weights, noise_factor, drive):
        def du_dt(u, forcing):
            return rate * (-u + forcing + (K * relu(u) ** GAMMA) @ weights.mT)

        known = solver == "heun" and carried is not None
        now = carried if known else drive + z @ noise_factor.mT
        z = DECAY * z + KICK * xi
        ahead = drive + z @ noise_factor.mT if solver == "heun" else None
        u, slope = scheme(du_dt, u, now, ahead, DT, carried if solver == "ab2" else None)
        return u, z, {"euler": None, "heun": ahead, "ab2": slope}[solver]

    return step


def time_constants(workload):
    return np.where(np.arange(workload.n_neurons) < workload.n_excitatory, TAU_E, TAU_I)


def repeated(drive, n_trials):
    """Drive of every column: trials of the first input, then of the second, ..."""
    return drive[..., :, None, :].expand(*drive.shape[:-1], n_trials, -1).flatten(-3, -2)


class TorchLoop(Variant):
    """The loop over steps in plain torch, with an autograd tape over the window."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        rate = torch.tensor(1 / time_constants(self.workload), dtype=torch.float32)
        self.step = make_step(torch.relu, rate.to(self.device), self.workload.solver)

    def copies(self):
        if self.mode == "forward":
            return 20
        # of every evaluation the rectified potential and the rate, of every step the noise;
        # glibc's allocator needs three times as much for them, since it cannot fill the gaps
        # that the temporary arrays of a step leave
        tape = self.workload.window * (2 * self.workload.evaluations + 1)
        return 20 + (3.3 if self.device == "cpu" else 1) * tape

    def mean(self, drive, noise, burn, window):
        """Of the trials of a chunk, divided by the number of all of them."""
        w, (weights, noise_factor, _) = self.workload, self.leaves
        drive = repeated(drive, w.n_trials // self.n_chunks)
        wanted = torch.is_grad_enabled()
        z = next(noise)
        u, total, carried = torch.zeros_like(z), 0, None
        for t in range(burn + window):
            if t == burn and w.solver == "heun":
                carried = None  # the forcing counts from here on, so its gradient does
            with torch.set_grad_enabled(wanted and t >= burn):
                u, z, carried = self.step(u, z, next(noise), carried, weights, noise_factor, drive)
                if t >= burn:
                    total = total + u
        return total.unflatten(-2, (w.n_inputs, -1)).sum(-2) / (window * w.n_trials)

    def normal(self):
        w = self.workload
        many = (w.n_networks,) if w.n_networks > 1 else ()
        while True:
            yield torch.randn(*many, self.columns, w.n_neurons, device=self.device)

    def forward(self):
        w = self.workload
        chunks = range(self.n_chunks)
        return sum(self.mean(self.leaves[2], self.normal(), w.burn, w.window) for _ in chunks)

    def gradient(self, xi=None):
        w = self.workload
        noise = self.normal() if xi is None else iter(torch.tensor(xi, device=self.device))
        gradients = [torch.zeros_like(leaf) for leaf in self.leaves]
        for _ in range(self.n_chunks):
            mean = self.mean(self.leaves[2], noise, w.burn, w.window)
            parts = torch.autograd.grad((mean * self.readout).sum(), self.leaves)
            for total, part in zip(gradients, parts, strict=True):
                total += part
        return gradients


class TorchLoopInBlocks(TorchLoop):
    """The plain loop on blocks of columns that fit into the cache, one after the other."""

    block = 2**16  # the best of those tried for 100 cells


class TorchCompile(TorchLoop):
    """The plain loop with its step under `torch.compile`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.device == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            raise Unavailable("torch.compile needs a C++ compiler")
        self.step = torch.compile(self.step, dynamic=False)

    def prepare(self):
        # three steps on either side of the boundary see every combination of what is
        # differentiated, and each is compiled by itself
        if self.mode == "forward":
            with torch.no_grad():
                self.mean(self.leaves[2], self.normal(), 3, 3)
        else:
            mean = self.mean(self.leaves[2], self.normal(), 3, 3)
            torch.autograd.grad((mean * self.readout).sum(), self.leaves)


class CudaGraph(TorchLoop):
    """The plain loop, noise and backward pass included, replayed as one CUDA graph."""

    takes_noise = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.device != "cuda":
            raise Unavailable("CUDA graphs need a GPU")

    def prepare(self):
        w = self.workload

        def chunk(burn, window):
            mean = self.mean(self.leaves[2], self.normal(), burn, window)
            if self.mode == "forward":
                return [mean]
            return torch.autograd.grad((mean * self.readout).sum(), self.leaves)

        with torch.set_grad_enabled(self.mode == "gradient"):
            # libraries set themselves up on the first calls, which a capture must not see
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    chunk(3, 3)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outputs = chunk(w.burn, w.window)

    def run(self):
        totals = [torch.zeros_like(output) for output in self.outputs]
        for _ in range(self.n_chunks):
            self.graph.replay()
            for total, output in zip(totals, self.outputs, strict=True):
                total += output
        return totals


class JaxScan(Variant):
    """`jax.lax.scan` over the steps and `jax.grad` through the window.

    The noise of a chunk of trials is drawn before its scan: by `jax.random` and within the
    timing, or, if `given`, beforehand and the same block for every chunk.
    """

    given = False
    block = 2**16  # the whole batch at once takes up to twice as long on a CPU
    unroll = 4  # 1 and 16 were slower

    def __init__(self, workload, mode, device="cpu", memory_limit=math.inf):
        try:
            import jax
        except ImportError:
            raise Unavailable("jax is not installed") from None
        if device == "cuda" and jax.default_backend() != "gpu":
            raise Unavailable("this jax has no GPU support")
        super().__init__(workload, mode, device, memory_limit)
        self.jax = jax
        leaves = (leaf.detach().cpu().numpy() for leaf in self.leaves)
        self.leaves = [jax.numpy.asarray(leaf) for leaf in leaves]
        self.readout = jax.numpy.asarray(self.readout.cpu().numpy())

    def copies(self):
        w = self.workload
        tape = w.window * (2 * w.evaluations + 1) if self.mode == "gradient" else 0
        return w.burn + w.window + tape

    def prepare(self):
        jax, w = self.jax, self.workload
        rate = (1 / time_constants(w)).astype(np.float32)
        step = make_step(jax.nn.relu, rate, w.solver)
        scan = partial(jax.lax.scan, unroll=self.unroll)
        many = (w.n_networks,) if w.n_networks > 1 else ()
        noise_shape = (1 + w.burn + w.window, *many, self.columns, w.n_neurons)

        def outcome(leaves, xi):
            weights, noise_factor, drive = leaves
            trials = w.n_trials // self.n_chunks
            drive = jax.numpy.repeat(drive, trials, axis=-2)
            z, u = xi[0], jax.numpy.zeros_like(xi[0])
            forcing = drive + z @ noise_factor.mT
            # what a first step carries, since the carry of a scan keeps its shape; Adams-
            # Bashforth starts with its first slope
            slope = rate * (-u + forcing)
            carried = {"euler": None, "heun": forcing, "ab2": slope}[w.solver]

            def advance(state, xi):
                return step(*state[:2], xi, state[2], weights, noise_factor, drive), None

            def advance_in_window(state, xi):
                after, _ = advance(state[:3], xi)
                return (*after, state[3] + after[0]), None

            state, _ = scan(advance, (u, z, carried), xi[1 : w.burn + 1])
            u, z, carried = jax.lax.stop_gradient(state)
            if w.solver == "heun":
                carried = drive + z @ noise_factor.mT
            state = (u, z, carried, jax.numpy.zeros_like(u))
            (*_, total), _ = scan(advance_in_window, state, xi[w.burn + 1 :])
            total = total.reshape(*many, w.n_inputs, trials, w.n_neurons).sum(-2)
            return total / (w.window * w.n_trials)

        def functional(leaves, xi):
            return (outcome(leaves, xi) * self.readout).sum()

        function = outcome if self.mode == "forward" else jax.grad(functional)
        noise_type = jax.ShapeDtypeStruct(noise_shape, "float32")
        self.function = jax.jit(function).lower(self.leaves, noise_type).compile()
        draw = jax.jit(lambda key: jax.random.normal(key, noise_shape, "float32"))
        self.key = jax.random.key(0)
        self.draw = draw.lower(self.key).compile()
        self.block = self.draw(self.key) if self.given else None

    def noise(self):
        if self.given:
            return self.block
        self.key, key = self.jax.random.split(self.key)
        return self.draw(key)

    def run(self):
        totals = None
        for _ in range(self.n_chunks):
            part = self.function(self.leaves, self.noise())
            totals = part if totals is None else self.jax.tree.map(lambda x, y: x + y, totals, part)
            # the next chunk's noise would otherwise be drawn while this one's is still held
            self.jax.block_until_ready(totals)
        return totals

    def gradient(self, xi):
        gradients = self.function(self.leaves, self.jax.numpy.asarray(xi))
        return [torch.tensor(np.array(gradient)) for gradient in gradients]


class JaxScanGiven(JaxScan):
    """The scan alone."""

    given = True


def floor_seconds(workload, mode, device="cpu", min_seconds=0.2):
    """Time of the matrix products alone, each on blocks as large as one likes.

    Every kind of product is timed on blocks of several sizes in several layouts, by torch and on a
    CPU by NumPy, and the best time per column taken as often as the work needs it: processors
    differ in which library multiplies faster on them.

    Returns
    -------
    seconds : float
    details : dict
        Best block and layout of each kind, and the rate in GFLOP/s.
    """
    n, many = workload.n_neurons, (workload.n_networks,) if workload.n_networks > 1 else ()
    matrix = torch.randn(*many, n, n, device=device)
    sizes = {workload.columns, 256, 1024, 4096, 16384}
    sizes = sorted(s for s in sizes if s * n * workload.n_networks <= 2**26)
    kinds = {
        "apply": {
            "X @ W": lambda x, y: torch.matmul(x, matrix, out=y),
            "X @ W.T": lambda x, y: torch.matmul(x, matrix.mT, out=y),
            "W @ X.T": lambda x, y: torch.matmul(matrix, x.view(*many, n, -1)),
        },
        "outer": {
            "X.T @ Y": lambda x, y: x.mT @ y,
            "(Y.T @ X).T": lambda x, y: (y.mT @ x).mT,
            "X @ Y.T": lambda x, y: x.view(*many, n, -1) @ y.view(*many, n, -1).mT,
        },
    }
    if device == "cpu":
        numpy_matrix = matrix.numpy()
        kinds["apply"]["NumPy, X @ W"] = lambda x, y: np.matmul(x.numpy(), numpy_matrix, y.numpy())
        kinds["apply"]["NumPy, W @ X.T"] = lambda x, y: numpy_matrix @ x.view(*many, n, -1).numpy()
        kinds["outer"]["NumPy, X.T @ Y"] = lambda x, y: x.mT.numpy() @ y.numpy()
    total, details = 0.0, {}
    for kind, count in workload.products(mode == "gradient").items():
        if not count:
            continue
        best = math.inf
        for size in sizes:
            x, y = (torch.randn(*many, size, n, device=device) for _ in range(2))
            for layout, product in kinds[kind].items():
                seconds = time_of(lambda x=x, y=y, p=product: p(x, y), device, min_seconds) / size
                if seconds < best:
                    best = seconds
                    details[kind] = {"layout": layout, "block": size}
        rate = 2 * workload.n_networks * n**2 / best / 1e9
        details[kind]["gflop_per_second"] = round(rate, 1)
        total += count * workload.columns * best
    return total, details


def time_of(function, device, min_seconds):
    """Best of five means: a floor is what the machine can do when nothing disturbs it."""

    def elapsed(n):
        start = time.perf_counter()
        for _ in range(n):
            function()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    elapsed(1)
    n = max(1, round(min_seconds / 5 / elapsed(1)))
    return min(elapsed(n) / n for _ in range(5))


def gradient_error(variant):
    """Largest relative error of the gradients for W, n and drive against the reference."""
    w = variant.workload
    if isinstance(variant, Engine):
        gradients, expected = variant.check()
    elif variant.takes_noise:
        variant.n_chunks = 1
        variant.prepare()
        rng = np.random.RandomState(1)
        xi = rng.normal(size=(1 + w.burn + w.window, w.columns, w.n_neurons)).astype(np.float32)
        gradients = variant.gradient(xi)
        z = xi.astype(float)
        for t in range(1, len(z)):
            z[t] = DECAY * z[t - 1] + KICK * z[t]
        expected = reference_gradients(w, variant, torch.tensor(z))
    else:
        return None
    pairs = zip(gradients, expected, strict=True)
    return max(float((g.cpu() - e).norm() / e.norm()) for g, e in pairs)


def reference_gradients(workload, variant, z, u=None, slope=None):
    """The same gradients by autograd through `reference.py`, in float64 on the CPU.

    Parameters
    ----------
    z : Tensor of shape (1 + burn + window, columns, n_neurons)
        Unit-variance noise at the start of the first step and at the end of every one.
    u, slope : Tensors of shape (columns, n_neurons), default=None
        Potentials at the start and slope of the step before; by default zero and none.
    """
    w = workload
    *leaves, readout = (torch.tensor(x, dtype=torch.float64) for x in w.arrays())
    leaves = [leaf.requires_grad_() for leaf in leaves]
    circuit = Circuit(leaves[0], w.n_excitatory, leaves[1], **CONSTANTS)
    u = torch.zeros_like(z[0]) if u is None else u

    def forcing(z):
        return repeated(leaves[2], w.n_trials) + z @ leaves[1].T

    if w.burn:
        with torch.no_grad():
            path = reference.integrate(circuit, u, forcing(z[: w.burn + 1]), DT, w.solver)
            *_, (u, slope) = path
    path = reference.integrate(circuit, u, forcing(z[w.burn :]), DT, w.solver, slope)
    total = sum(u for u, _ in path)
    mean = total.unflatten(0, (w.n_inputs, -1)).sum(1) / (w.window * w.n_trials)
    return torch.autograd.grad((mean * readout).sum(), leaves)


VARIANTS = {
    "engine": Engine,
    "engine, weak increments": WeakEngine,
    "engine, tf32": Tf32Engine,
    "engine, networks in one call": EngineOfMany,
    "torch loop": TorchLoop,
    "torch loop, column blocks": TorchLoopInBlocks,
    "torch.compile": TorchCompile,
    "cuda graph": CudaGraph,
    "jax scan": JaxScan,
    "jax scan, noise given": JaxScanGiven,
}
