"""The schemes of `reference.py` in place, and their adjoints, for one block of columns.

Arrays have shape (n_neurons, n_columns), columns ordered (input, sign, draw): draws are
independent noise, and with antithetic pairs each is used with either sign. All is measured in
increments of u per step: with e = dt / tau,

    du = F - e u + A r,    r = [u]+^gamma,    A = e k W,    F = e (f(h) + n z).
"""

import torch

from ssn_estimators.simulation.noise import OrnsteinUhlenbeck

__all__ = ["Adjoint", "Stepper", "new_noise"]

# Share of this step's increment and of the last one's in a linear multi-step scheme
MULTISTEP = {"euler": (1.0, 0.0), "ab2": (1.5, -0.5)}


def new_noise(block):
    setup, (n_inputs, _, n_draws) = block.setup, block.columns
    shape = (block.n, n_draws if setup.shared_noise else n_inputs * n_draws)
    kind = setup.increments, block.drive.dtype, block.drive.device
    return OrnsteinUhlenbeck(shape, setup.dt, setup.tau_eta, block.seed, *kind)


class Stepper:
    """Steps forward in time, from the first on."""

    def __init__(self, block):
        self.block, self.setup, self.noise = block, block.setup, new_noise(block)
        self.moving = block.drive.ndim == 3
        self.base = block.drive.new_empty((block.n, block.n_columns))  # e f(h) of every column
        self._set_base(0)
        self.minus_step = -block.step
        self.r, self.increment, self.last, self.predicted = (
            torch.empty_like(self.base) for _ in range(4)
        )
        self.t = 0

    def advance(self, u, path, predictions):
        """Write u after each of the coming steps to `path`; the last of them.

        `predictions` takes Heun's, or is None.
        """
        heun = self.setup.solver == "heun"
        for first in range(0, len(path), self.noise.n_steps):
            part = path[first : first + self.noise.n_steps]
            z = self.noise.advance(len(part))
            if z[0].shape == u.shape and self.block.columns[1] == 1 and not heun:
                kicks = z  # their product with n is added to the increment in place
            else:
                kicks = torch.matmul(self.block.noise_factor, z)
            kicks = kicks.unbind()
            for i, out in enumerate(part):
                if heun:
                    predicted = self.predicted if predictions is None else predictions[first + i]
                    u = self._heun(u, out, predicted, *kicks[i : i + 2])
                else:
                    u = self._multistep(u, out, kicks[i])
        return u

    def _multistep(self, u, out, kick):
        current, before = MULTISTEP[self.setup.solver]
        new = self._increment(u, kick, self.increment)
        torch.add(u, new, alpha=current if self.t else current + before, out=out)
        if before and self.t:
            out.add_(self.last, alpha=before)
        self.increment, self.last = self.last, new
        self.t += 1
        if self.moving:
            self._set_base(self.t)
        return out

    def _heun(self, u, out, predicted, kick, kick_ahead):
        new = self._increment(u, kick, self.increment)
        torch.add(u, new, out=predicted)
        torch.add(u, new, alpha=0.5, out=out)
        self.t += 1
        if self.moving:
            self._set_base(self.t)
        return out.add_(self._increment(predicted, kick_ahead, new), alpha=0.5)

    def _increment(self, u, kick, out):
        block, gamma = self.block, self.setup.gamma
        r = torch.clamp_min(u, 0.0, out=self.r)
        torch.mul(r, r, out=r) if gamma == 2 else r.pow_(gamma)
        torch.addcmul(self.base, u, self.minus_step, out=out)
        self._kick(out, kick)
        out.addmm_(block.recurrent, r)
        # trials that are left out rest at u = 0
        return out if block.alive is None else out.mul_(block.alive.view(1, -1))

    def _kick(self, out, kick):
        """Add e n z; `kick` is that of every draw, or z of every column."""
        block, heun = self.block, self.setup.solver == "heun"
        n_inputs, n_signs, n_draws = block.columns
        if n_signs == 2:
            columns, kick = out.view(block.shape), kick.view(block.n, -1, n_draws)
            columns[:, :, 0].add_(kick)
            columns[:, :, 1].sub_(kick)
        elif kick.shape != out.shape:
            # one draw a cell broadcasts as it is
            columns = out if n_draws == 1 else out.view(block.n, n_inputs, n_draws)
            columns.add_(kick if n_draws == 1 else kick[:, None])
        elif heun:
            out.add_(kick)
        else:
            out.addmm_(block.noise_factor, kick)

    def _set_base(self, t):
        drive = self.block.drive
        if self.moving:
            drive = drive[min(t, len(drive) - 1)]
        self.base.view(self.block.shape).copy_(drive[:, :, None, None])


class Adjoint:
    """Steps back in time, from the last on, and the gradients that they add up."""

    def __init__(self, block):
        self.block, self.setup = block, block.setup
        self.recurrent = torch.zeros_like(block.recurrent)
        self.noise_factor = torch.zeros_like(block.noise_factor)
        self.moving = block.drive.ndim == 3
        self.drive = torch.zeros_like(block.drive) if self.moving else None
        new = block.drive.new_zeros
        self.forced, self.carried, self.x, self.r, self.gain, self.back, self.to_predicted = (
            new((block.n, block.n_columns)) for _ in range(7)
        )
        # gamma of the gain is put here
        self.transposed = block.setup.gamma * block.recurrent.T.contiguous()
        self.back_step = self._heun if block.setup.solver == "heun" else self._multistep

    def result(self):
        drive = self.drive
        if drive is None:
            drive = self.forced.view(self.block.shape).sum((2, 3))
        return self.recurrent, self.noise_factor, drive

    def _multistep(self, grad_u, u, predicted, z, z_ahead, t):
        current, before = MULTISTEP[self.setup.solver]
        x = grad_u
        if before:
            # what the next step owes to this one's increment
            x = torch.add(self.carried, grad_u, alpha=current, out=self.x)
            torch.mul(grad_u, before, out=self.carried)
            if t == 0 and self.setup.n_burn == 0:
                x.add_(self.carried)  # the first increment stands in for the one before it
        self._force(x, z, t)
        self._through(x, u, grad_u)

    def _heun(self, grad_u, u, predicted, z, z_ahead, t):
        x = torch.mul(grad_u, 0.5, out=self.x)
        # the forcing at the end of this step is that at the start of the next
        self._force(self.carried.add_(x), z_ahead, t + 1)
        self._through(x, predicted, self.to_predicted.zero_())
        x.add_(self.to_predicted)
        grad_u.add_(self.to_predicted)
        self._through(x, u, grad_u)
        self.carried.copy_(x)
        if t == 0:
            self._force(x, z, t)

    def _through(self, x, u, grad_u):
        """Add what x, the gradient of an increment, owes to u and to A; x may be grad_u."""
        gamma = self.setup.gamma
        gain = torch.clamp_min(u, 0.0, out=self.gain)
        if gamma == 2:
            torch.mul(gain, gain, out=self.r)
        else:
            torch.pow(gain, gamma, out=self.r)
            gain.pow_(gamma - 1) if gamma > 1 else gain.copy_(u > 0)
        self.recurrent.addmm_(x, self.r.T)
        torch.mm(self.transposed, x, out=self.back)
        grad_u.addcmul_(x, self.block.step, value=-1.0).addcmul_(self.back, gain)

    def _force(self, x, z, t):
        """Add what x, the gradient of F at the start of step t, owes to n and f(h)."""
        block = self.block
        n_inputs, n_signs, n_draws = block.columns
        noise, columns = x, x.view(block.shape)
        if n_signs == 2:
            noise = columns[:, :, 0] - columns[:, :, 1]
        if self.setup.shared_noise:
            noise = noise.view(block.n, n_inputs, n_draws).sum(1)
        self.noise_factor.addmm_(noise.reshape(z.shape), z.T)
        if self.moving:
            at = min(self.setup.n_burn + t, len(self.drive) - 1)
            self.drive[at] += columns.sum((2, 3))
        else:
            self.forced.add_(x)
