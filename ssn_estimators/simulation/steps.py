"""Steps of a block of columns: forcing and noise before the loops, sums after them.

Arrays have shape (n_neurons, n_columns), columns ordered (input, sign, draw): draws are
independent noise, and with antithetic pairs each is used with either sign. All is measured in
increments of u per step: with e = dt / tau,

    du = F - e u + A r,    r = [u]+^gamma,    A = e k W,    F = e (f(h) + n z).
"""

import torch

from ssn_estimators.simulation import loops
from ssn_estimators.simulation.noise import OrnsteinUhlenbeck

try:
    from ssn_estimators.simulation import compiled
except ImportError:  # Numba comes with an extra
    compiled = None

__all__ = ["Adjoint", "Stepper", "new_noise"]

# Share of this step's increment and of the last one's in a linear multi-step scheme
MULTISTEP = {"euler": (1.0, 0.0), "ab2": (1.5, -0.5)}


def new_noise(block):
    setup, (n_inputs, _, n_draws) = block.setup, block.columns
    shape = (block.n, n_draws if setup.shared_noise else n_inputs * n_draws)
    kind = setup.increments, block.drive.dtype, block.drive.device
    return OrnsteinUhlenbeck(shape, setup.dt, setup.tau_eta, block.seed, *kind)


def _call(name, *args):
    """A loop of `loops`, compiled where that is possible; numbers in the arrays' dtype."""
    if compiled is None or args[0].device.type != "cpu":
        return getattr(loops, name)(*args)
    number = args[0].numpy().dtype.type
    args = [
        x.numpy() if torch.is_tensor(x) else number(x) if isinstance(x, float) else x for x in args
    ]
    return getattr(compiled, name)(*args)


class Stepper:
    """Steps forward in time, from the first on."""

    def __init__(self, block):
        self.block, self.setup, self.noise = block, block.setup, new_noise(block)
        new = block.drive.new_empty
        self.increment, self.last, self.r = (new((block.n, block.n_columns)) for _ in range(3))
        heun = self.setup.solver == "heun"
        self.room = new((1, block.n, block.n_columns)) if heun else None  # for predictions
        self.forcing = new((self.noise.n_steps + 1, block.n, block.n_columns))
        self.gamma = float(self.setup.gamma)
        self.t = 0

    def advance(self, u, path, predictions):
        """Write u after each of the coming steps to `path`; the last of them.

        `predictions` takes Heun's, or is None.
        """
        common = self.block.recurrent, self.block.step
        for first in range(0, len(path), self.noise.n_steps):
            part = path[first : first + self.noise.n_steps]
            forcing = self._forcing(len(part))
            if self.setup.solver == "heun":
                room = self.room
                if predictions is not None:
                    room = predictions[first : first + len(part)]
                rest = 0.5, self.increment, self.r, self.gamma
                _call("heun", u, part, room, forcing, *common, *rest)
            else:
                rest = self.t == 0, self.increment, self.last, self.r, self.gamma
                shares = MULTISTEP[self.setup.solver]
                _call("multistep", u, part, forcing, *common, *shares, *rest)
                if len(part) % 2:
                    self.increment, self.last = self.last, self.increment
            u = part[-1]
            self.t += len(part)
        return u

    def _forcing(self, n_steps):
        """F at the start of each of the coming steps, and at the end of the last."""
        block, drive, size = self.block, self.block.drive, n_steps + 1
        _, n_signs, n_draws = block.columns
        z = self.noise.advance(n_steps)
        if drive.ndim == 3:
            times = torch.arange(self.t, self.t + size).clamp_max_(len(drive) - 1)
            drive = drive[times]
        base = drive[..., None, None].expand(size, *block.shape)
        forcing = self.forcing[:size]
        columns = forcing.view(size, *block.shape)
        kicks = torch.matmul(block.noise_factor, z).view(size, block.n, -1, n_draws)
        torch.add(base[:, :, :, 0], kicks, out=columns[:, :, :, 0])
        if n_signs == 2:
            torch.sub(base[:, :, :, 1], kicks, out=columns[:, :, :, 1])
        if block.alive is not None:
            forcing.mul_(block.alive.view(1, -1))  # trials that are left out rest at u = 0
        return forcing


class Adjoint:
    """Steps back in time, from the last on, and the gradients that they add up."""

    def __init__(self, block):
        self.block, self.setup = block, block.setup
        self.recurrent = torch.zeros_like(block.recurrent)
        self.noise_factor = torch.zeros_like(block.noise_factor)
        self.drive = torch.zeros_like(block.drive)
        new, gamma = block.drive.new_zeros, float(self.setup.gamma)
        self.grad_u, self.carried, r, back = (new((block.n, block.n_columns)) for _ in range(4))
        self.room = self.recurrent, torch.empty_like(self.recurrent), r, back, gamma
        self.transposed = (gamma * block.recurrent.T).contiguous()

    def back(self, owed, u, predictions, z, first):
        """Go back over the steps that begin at `u`, of which `first` is the number of the first.

        `z` is the noise at their starts, and at the end of the last.
        """
        xs, setup = torch.empty_like(u), self.setup
        fixed = self.transposed, self.block.step
        if setup.solver == "heun":
            ys = torch.empty_like(u)
            states = owed, u, predictions, xs, ys
            _call("back_heun", self.grad_u, *states, *fixed, 0.5, *self.room)
            # the forcing at the end of a step is that at the start of the next
            self._force(ys, z[1:], first + 1)
        else:
            cold = first == 0 and setup.n_burn == 0
            rest = *MULTISTEP[setup.solver], cold, self.carried
            _call("back_multistep", self.grad_u, owed, u, xs, *fixed, *rest, *self.room)
        self._force(xs, z[:-1], first)

    def _force(self, xs, z, first):
        """Add what gradients of F at the starts of steps owe to n and f(h)."""
        block = self.block
        n_signs = block.columns[1]
        columns = xs.view(-1, *block.shape)
        noise = columns[:, :, :, 0]
        if n_signs == 2:
            noise = noise - columns[:, :, :, 1]
        if self.setup.shared_noise:
            noise = noise.sum(2)
        self.noise_factor += torch.bmm(noise.reshape(z.shape), z.mT).sum(0)
        if self.drive.ndim == 2:
            self.drive += columns.sum((0, 3, 4))
        else:
            start = self.setup.n_burn + first
            times = torch.arange(start, start + len(xs)).clamp_max_(len(self.drive) - 1)
            self.drive.index_add_(0, times.to(xs.device), columns.sum((3, 4)))
