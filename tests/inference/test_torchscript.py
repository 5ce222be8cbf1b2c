import io
import re
import zipfile

import torch

from app.inference import torchscript
from training.autoencoders import DenseAutoencoder
from training.scoring import Mse, ScoredAutoencoder


def _model() -> ScoredAutoencoder:
    torch.manual_seed(3)
    return ScoredAutoencoder(DenseAutoencoder((1, 8, 8), (16,), 4, linear_code=False), Mse())


def test_loaded_archive_computes_what_the_module_does() -> None:
    model, images = _model(), torch.rand(5, 1, 8, 8)
    expected = model.eval()(images)
    got = torchscript.load(torchscript.dump(model))(images)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_no_path_of_this_machine_is_left_in_the_archive() -> None:
    archive = torchscript.dump(_model())
    with zipfile.ZipFile(io.BytesIO(archive)) as records:
        names = records.namelist()
        content = b"\n".join(records.read(name) for name in names)
    assert not [name for name in names if "debug" in name]
    assert not re.search(rb"(/[\w.-]+){2,}\.py", content)
    # The exporter does write such paths: without the cleaning this test would fail.
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(_model()), buffer)
    with zipfile.ZipFile(buffer) as records:
        assert any(re.search(rb"(/[\w.-]+){2,}\.py", records.read(name)) for name in records.namelist())


def test_equal_weights_give_equal_bytes() -> None:
    assert torchscript.dump(_model()) == torchscript.dump(_model())
