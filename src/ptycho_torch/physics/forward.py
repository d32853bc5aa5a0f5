"""The differentiable forward model of far-field ptychography, batched and precision-agnostic.

Legend: B batch, C patches in a group, m probe modes, N frame side, HxW object, xy coordinate
pairs (x, y) in object pixels; images are indexed [y, x]. All functions keep the precision of
their inputs (complex64 or complex128). Conventions, stated once and used everywhere:

- patch pixel N/2 lies on the scan coordinate; sampling is bilinear, zero outside, and weights
  are not renormalised at the edge;
- ``translate`` moves content by (+dx, +dy);
- amplitude A = sqrt(fftshift(|FFT2(ψ)|²)/N²), so that Σ A² = Σ |ψ|² (orthonormal transform);
- probe modes add in intensity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NLL_FLOOR = 1e-12


def _split(start: Tensor) -> tuple[Tensor, Tensor]:
    """Integer part (int64) and differentiable fraction of fractional positions."""
    whole = torch.floor(start.detach())
    return whole.long(), start - whole


def sample_windows(images: Tensor, start_yx: Tensor, size: tuple[int, int]) -> Tensor:
    """Read windows at fractional positions, bilinear, zero outside.

    Args:
        images: (B, H, W) or (1, H, W) shared by all windows, real or complex.
        start_yx: (B, 2) position of each window's pixel [0, 0], rows first; float64 keeps
            sub-pixel positions exact on large objects. Gradients flow into it.
        size: (h, w) of the windows.

    Returns:
        (B, h, w)
    """
    height, width = images.shape[-2:]
    whole, fraction = _split(start_yx)
    rows = whole[:, :1] + torch.arange(size[0] + 1, device=images.device)  # (B, h+1)
    cols = whole[:, 1:] + torch.arange(size[1] + 1, device=images.device)  # (B, w+1)
    real = images.real.dtype if images.is_complex() else images.dtype
    inside_y = ((rows >= 0) & (rows < height)).to(real)
    inside_x = ((cols >= 0) & (cols < width)).to(real)
    flat = (rows.clamp(0, height - 1) * width)[:, :, None] + cols.clamp(0, width - 1)[:, None, :]
    if images.shape[0] == 1:
        window = images.reshape(-1)[flat]
    else:
        window = torch.gather(images.flatten(1), 1, flat.flatten(1)).view(flat.shape)
    window = window * (inside_y[:, :, None] * inside_x[:, None, :])  # (B, h+1, w+1)
    fy = fraction[:, 0].to(real)[:, None, None]
    fx = fraction[:, 1].to(real)[:, None, None]
    window = torch.lerp(window[:, :-1], window[:, 1:], fy.to(window.dtype))
    return torch.lerp(window[:, :, :-1], window[:, :, 1:], fx.to(window.dtype))


def spread(windows: Tensor, start_yx: Tensor) -> tuple[Tensor, Tensor]:
    """Shift (K, h, w) windows by the fraction of (K, 2) positions, bilinear.

    Returns:
        The shifted windows (K, h+1, w+1) and the integer positions (K, 2) where they belong.
    """
    whole, fraction = _split(start_yx)
    real = windows.real.dtype if windows.is_complex() else windows.dtype
    fy = fraction[:, 0].to(real)[:, None, None]
    fx = fraction[:, 1].to(real)[:, None, None]
    out = torch.nn.functional.pad(windows, (1, 1, 1, 1))
    out = out[:, 1:] * (1 - fy) + out[:, :-1] * fy  # (K, h+1, w+2)
    out = out[:, :, 1:] * (1 - fx) + out[:, :, :-1] * fx  # (K, h+1, w+1)
    return out, whole


def accumulate(canvas: Tensor, windows: Tensor, start_yx: Tensor) -> Tensor:
    """Add windows at integer positions, in place; what falls outside is dropped.

    Args:
        canvas: (G, H, W).
        windows: (G·K, h, w), the K windows of canvas 0, then of canvas 1, ...
        start_yx: (G·K, 2) int64, rows first.
    """
    groups, height, width = canvas.shape
    count, h, w = windows.shape
    rows = start_yx[:, :1] + torch.arange(h, device=canvas.device)
    cols = start_yx[:, 1:] + torch.arange(w, device=canvas.device)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None]
    index = (rows.clamp(0, height - 1) * width)[:, :, None]
    index = index + cols.clamp(0, width - 1)[:, None, :]
    owner = torch.arange(groups, device=canvas.device).repeat_interleave(count // groups)
    index = index + (owner * (height * width))[:, None, None]
    values = (windows * inside).reshape(-1).to(canvas.dtype)
    return canvas.view(-1).index_add_(0, index.reshape(-1), values).view(canvas.shape)


def add_windows(canvas: Tensor, windows: Tensor, start_yx: Tensor) -> Tensor:
    """Add (G, K, h, w) windows at fractional (G, K, 2) positions: adjoint of ``sample_windows``.

    ``canvas`` (G, H, W) is changed in place and returned.
    """
    shifted, whole = spread(windows.flatten(0, 1), start_yx.flatten(0, 1))
    return accumulate(canvas, shifted, whole)


def extract_patches(obj: Tensor, coords_xy: Tensor, size: int) -> Tensor:
    """Cut NxN patches of an object (H, W) around scan coordinates (B, 2): (B, N, N)."""
    start = coords_xy.flip(-1) - size / 2  # rows first
    return sample_windows(obj[None], start, (size, size))


def translate(images: Tensor, shift_xy: Tensor) -> Tensor:
    """Move the content of (B, H, W) images by (B, 2) shifts (dx, dy), bilinear, zero outside."""
    return sample_windows(images, -shift_xy.flip(-1), (images.shape[-2], images.shape[-1]))


def gaussian_smooth(field: Tensor, sigma: float) -> Tensor:
    """Smooth (..., N, N) by a 3x3 softmax(-k²/2sigma²) kernel, reflected borders; 0 is identity."""
    if sigma == 0:
        return field
    parts = torch.view_as_real(field).movedim(-1, 0) if field.is_complex() else field[None]
    offsets = torch.tensor([-1.0, 0.0, 1.0], dtype=parts.dtype, device=parts.device)
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), 0)
    kernel = (weights[:, None] * weights[None, :])[None, None]
    flat = parts.reshape(-1, 1, *parts.shape[-2:])
    flat = torch.nn.functional.pad(flat, (1, 1, 1, 1), mode="reflect")
    smooth = torch.nn.functional.conv2d(flat, kernel).view(parts.shape)
    if not field.is_complex():
        return smooth[0]
    return torch.view_as_complex(smooth.movedim(0, -1).contiguous())


def illuminate(
    patches: Tensor, probe: Tensor, *, sigma: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Exit waves ψ = smooth(P·O)·mask.

    Args:
        patches: (B, C, N, N) complex object patches.
        probe: (m, N, N) complex modes, or (B|1, C|1, m, N, N).
        sigma: width of the smoothing of the product, in pixels.
        mask: (N, N) real factor of the exit wave.

    Returns:
        (B, C, m, N, N)

    Raises:
        ValueError: the probe has another rank; a (B, N, N) probe would multiply the intensity.
    """
    if probe.dim() == 3:
        probe = probe[None, None]
    if probe.dim() != 5:
        raise ValueError(
            f"illuminate: probe of shape {tuple(probe.shape)}; give (modes, N, N) or "
            "(B or 1, C or 1, modes, N, N)"
        )
    wave = gaussian_smooth(patches[:, :, None] * probe, sigma)
    return wave if mask is None else wave * mask.to(wave.real.dtype)


def diffract_intensity(waves: Tensor) -> Tensor:
    """Detector intensity of exit waves (..., m, N, N), summed over modes, centred: (..., N, N)."""
    field = torch.fft.fft2(waves, norm="ortho")
    intensity = (field.real.square() + field.imag.square()).sum(-3)
    return torch.fft.fftshift(intensity, dim=(-2, -1))


def diffract(waves: Tensor) -> Tensor:
    """Detector amplitude of exit waves (..., m, N, N): (..., N, N).

    One mode takes |·| of the complex field, whose gradient at zero is finite; several take the
    square root of the summed intensity above a tiny floor.
    """
    if waves.shape[-3] == 1:
        field = torch.fft.fft2(waves[..., 0, :, :], norm="ortho")
        return torch.fft.fftshift(field.abs(), dim=(-2, -1))
    intensity = diffract_intensity(waves)
    return torch.sqrt(intensity.clamp_min(torch.finfo(intensity.dtype).tiny))


def poisson_nll(rate: Tensor, counts: Tensor, *, full: bool = False) -> Tensor:
    """Elementwise λ - k·log λ with λ ≥ 1e-12; ``full`` adds log k! (lgamma(k+1))."""
    rate = rate.clamp_min(NLL_FLOOR)
    loss = rate - counts * torch.log(rate)
    return loss + torch.lgamma(counts + 1) if full else loss


def amplitude_mae(predicted: Tensor, measured: Tensor) -> Tensor:
    """Elementwise |Â - A| of amplitudes."""
    return (predicted - measured).abs()


def total_variation(obj: Tensor) -> Tensor:
    """Sum of squared finite differences of the real and imaginary parts of (..., H, W)."""
    rows = obj[..., 1:, :] - obj[..., :-1, :]
    cols = obj[..., :, 1:] - obj[..., :, :-1]
    return rows.abs().square().sum() + cols.abs().square().sum()


def hard_mask(size: int) -> Tensor:
    """Disk of radius N//4 whose pixel centres sit at n - N//2 + 0.5: (N, N) bool."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2 + 0.5
    return torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2) < size // 4


def soft_mask(size: int, sigma: float = 1.0, diameter: float | None = None) -> Tensor:
    """Disk blurred by a truncated Gaussian (radius ⌈3sigma⌉), maximum 1: (N, N) float64."""
    radius_px = (size / 2 if diameter is None else diameter) / 2
    axis = torch.arange(size, dtype=torch.float64) - size // 2 + 0.5
    disk = (torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2) < radius_px).double()
    if sigma == 0:
        return disk
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    kernel = (weights[:, None] * weights[None, :])[None, None]
    blurred = torch.nn.functional.conv2d(disk[None, None], kernel, padding=reach)[0, 0]
    return (blurred / blurred.max()).clamp(0, 1)
