"""The discriminator: its file format (names and shapes of weights), refusals, range, gradients, other settings."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import rgb_to_grayscale

from srgan_nb.discriminator import Discriminator, FeatureDiscriminator, PatchDiscriminator
from srgan_nb.errors import UserError

SMALL = dict(patch_size=32, channels=4, dense=8)


def test_names_and_shapes_of_weights_stay():
    """Training states are continued by these names: a change here makes every saved run useless."""
    maps = [3, 4, 4, 8, 8, 16, 16, 32, 32]
    convolutions = [0, 2, 5, 8, 11, 14, 17, 20]  # their places in `features`; BN stands behind all but the first
    expected = {"features.0.bias": (4,), "classifier.1.weight": (8, 32 * 2 * 2), "classifier.1.bias": (8,),
                "classifier.3.weight": (1, 8), "classifier.3.bias": (1,)}
    for index, place in enumerate(convolutions):
        expected[f"features.{place}.weight"] = (maps[index + 1], maps[index], 3, 3)
        if index:
            norm = f"features.{place + 1}"
            names = ("weight", "bias", "running_mean", "running_var")
            expected |= {f"{norm}.{name}": (maps[index + 1],) for name in names}
            expected[f"{norm}.num_batches_tracked"] = ()
    assert {name: tuple(value.shape) for name, value in Discriminator(**SMALL).state_dict().items()} == expected


@pytest.mark.parametrize("extra", [{}, {"batch_norm": False}])
def test_settings_rebuild_the_same_network(extra):
    discriminator = Discriminator(**SMALL, **extra).eval()
    twin = Discriminator(**discriminator.settings).eval()
    twin.load_state_dict(discriminator.state_dict())
    patches = torch.rand(2, 3, 32, 32)
    assert torch.equal(twin(patches), discriminator(patches))


@pytest.mark.parametrize("wrong, word", [
    (lambda: Discriminator(patch_size=100), "multiple of 16"), (lambda: Discriminator(patch_size=0), "multiple of 16"),
    (lambda: Discriminator(patch_size=-16), "multiple of 16"),
    (lambda: Discriminator(**SMALL)(torch.rand(1, 3, 48, 48)), r"patch_size=\.\.\."),
    (lambda: Discriminator(**SMALL)(torch.rand(1, 3, 32, 48)), r"\(1, 3, 32, 48\)"),
    (lambda: Discriminator(**SMALL)(torch.rand(1, 1, 32, 32)), r"\(N, 3, 32, 32\)"),
    (lambda: Discriminator(**SMALL)(torch.rand(3, 32, 32)), r"\(N, 3, 32, 32\)")])
def test_wrong_arguments_are_refused_in_one_line(wrong, word):
    with pytest.raises(UserError, match=word) as error:
        wrong()
    assert "\n" not in str(error.value)


def test_the_first_convolution_sees_signed_values():
    seen = []
    discriminator = Discriminator(**SMALL).eval()
    discriminator.features[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    discriminator(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 32, 32))
    assert (seen[0][0] == -1).all() and (seen[0][1] == 1).all()


def test_gradients_reach_every_parameter_and_the_picture():
    torch.manual_seed(0)
    discriminator = Discriminator(**SMALL)
    patches = torch.rand(4, 3, 32, 32, requires_grad=True)
    F.softplus(-discriminator(patches)).mean().backward()
    silent = [name for name, parameter in discriminator.named_parameters() if parameter.grad.abs().max() == 0]
    assert not silent
    assert (patches.grad != 0).float().mean() > 0.99  # no pixel is left out by a stride


def test_logits_are_not_squashed():
    discriminator = Discriminator(**SMALL).eval()
    torch.nn.init.constant_(discriminator.classifier[3].bias, 50.0)
    assert (discriminator(torch.rand(3, 3, 32, 32)) > 40).all()


def test_in_evaluation_mode_a_verdict_depends_on_the_patch_alone():
    torch.manual_seed(0)
    discriminator, patches = Discriminator(**SMALL), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(discriminator(patches)[:2], discriminator(patches[:2]), atol=1e-5)
        discriminator.eval()
        assert torch.allclose(discriminator(patches)[:2], discriminator(patches[:2]), atol=1e-6)


@pytest.mark.parametrize("patch_size", [16, 48, 128])
def test_patch_sizes(patch_size):
    discriminator = Discriminator(patch_size, channels=4, dense=8)
    assert discriminator(torch.rand(2, 3, patch_size, patch_size)).shape == (2, 1)
    assert discriminator.classifier[1].in_features == 32 * (patch_size // 16) ** 2


# the judge of textures

def test_patch_discriminator_judges_places_of_any_patch_and_is_rebuilt_from_its_settings():
    discriminator = PatchDiscriminator(channels=4).eval()
    twin = PatchDiscriminator(**discriminator.settings).eval()
    twin.load_state_dict(discriminator.state_dict())
    patches = torch.rand(2, 3, 40, 64)
    assert torch.equal(twin(patches), discriminator(patches)) and twin(patches).shape == (2, 1, 5, 8)


def test_patch_discriminator_judges_a_place_without_the_others():
    "A change far away does not move a logit: no dense layer, no statistics over the batch."
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=4).eval()
    patches = torch.rand(2, 3, 128, 128)
    changed = patches.clone()
    changed[1] = 0
    changed[0, :, 100:, 100:] = 0
    before, after = discriminator(patches)[0, 0], discriminator(changed)[0, 0]
    assert torch.equal(before[:6, :6], after[:6, :6]) and not torch.equal(before[-1, -1], after[-1, -1])


def test_patch_discriminator_is_not_steeper_than_its_input():
    "Each convolution has spectral norm 1 by its kernel, also after an update of its weights."
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=4)
    optimizer = torch.optim.Adam(discriminator.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        discriminator(torch.rand(2, 3, 32, 32)).mean().backward()
        optimizer.step()
    for _ in range(60):
        discriminator(torch.rand(1, 3, 32, 32))
    kernels = [layer.weight.flatten(1) for layer in discriminator.features if hasattr(layer, "weight")]
    assert len(kernels) == 8
    for kernel in kernels:
        assert torch.linalg.matrix_norm(kernel, 2).item() == pytest.approx(1, abs=0.02)


def test_patch_discriminator_with_luma_is_blind_to_colour_and_asks_for_none():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=4, luma=True).eval()
    patches = torch.rand(2, 3, 32, 32).requires_grad_()
    grey = rgb_to_grayscale(patches, 3)
    assert torch.allclose(discriminator(patches), discriminator(grey), atol=1e-5)
    discriminator(patches).sum().backward()
    red, green, blue = patches.grad.unbind(1)
    assert torch.allclose(red / 0.2989, green / 0.587, atol=1e-4) and torch.allclose(blue / 0.114, green / 0.587, atol=1e-4)
    assert not torch.allclose(PatchDiscriminator(4).eval()(patches), PatchDiscriminator(4).eval()(grey), atol=1e-3)


def test_feature_discriminator_judges_directions_and_leaves_the_other_network_alone():
    torch.manual_seed(0)
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3, stride=2)).requires_grad_(False)

    def seen(images):
        return [other[0](images), other(images)]

    discriminator = FeatureDiscriminator(seen, [5, 6], channels=4, share=0.25).eval()
    assert all(name.startswith("heads.") for name in discriminator.state_dict())
    patches = torch.rand(8, 3, 32, 32).requires_grad_()
    logits = discriminator(patches)
    assert logits.shape == (8, 2, 14, 14)
    logits.sum().backward()
    assert patches.grad.abs().sum() > 0 and other[0].weight.grad is None
    assert all(weight.grad.abs().sum() > 0 for weight in discriminator.parameters())
    brighter = FeatureDiscriminator(lambda images: [7 * each for each in seen(images)], [5, 6], channels=4).eval()
    brighter.load_state_dict(discriminator.state_dict())
    torch.testing.assert_close(brighter(patches), logits)


def test_feature_discriminator_judges_its_share_of_a_batch_in_training_only():
    discriminator = FeatureDiscriminator(lambda images: [images], [3], channels=4, share=0.25)
    sizes = {count: len(discriminator.train()(torch.rand(count, 3, 8, 8))) for count in (1, 2, 8)}
    assert sizes == {1: 1, 2: 1, 8: 2} and len(discriminator.eval()(torch.rand(8, 3, 8, 8))) == 8
