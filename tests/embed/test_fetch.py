"""Weights come from a hub by one command, checked, whole or not at all."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from phenopipe.config import load_config
from phenopipe.embed.fetch import fetch_weights, find_source, main
from phenopipe.errors import UserError
from phenopipe.wiring import Wiring

MODEL = "vit_small_patch14_reg4_dinov2.lvd142m"
CONTENT = save({"cls_token": torch.ones(1, 1, 4)})
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub():
    """A hub on this machine in the real one's layout; yields its address and its answers."""
    answers = {"etag": DIGEST, "content": CONTENT}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._head()

        def do_GET(self):
            if self._head():
                self.wfile.write(answers["content"])

        def _head(self):
            found = self.path == f"/timm/{MODEL}/resolve/main/model.safetensors"
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{answers["etag"]}"')
            self.send_header("Content-Length", str(len(answers["content"]) if found else 0))
            self.end_headers()
            return found

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


def test_a_preset_is_fetched_and_its_checksum_told(hub, tmp_path, capsys):
    main(["DINOv2-S/14", f"--folder={tmp_path}", f"--endpoint={hub[0]}"])
    assert (tmp_path / f"{MODEL}.safetensors").read_bytes() == CONTENT
    assert f"sha256: {DIGEST}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "sha256", "told"),
    [
        ({"etag": "0" * 64}, None, f"sha256 {DIGEST}, wanted 0000"),
        ({}, "1" * 64, f"sha256 {DIGEST}, wanted 1111"),
        ({"etag": "an-old-tag"}, None, "announces no checksum, wanted --sha256"),
    ],
)
def test_another_checksum_leaves_nothing_behind(hub, answer, sha256, told, tmp_path):
    hub[1].update(answer)
    with pytest.raises(UserError, match=told):
        fetch_weights(MODEL, tmp_path, sha256=sha256, endpoint=hub[0])
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_command_to_run_elsewhere_is_told(tmp_path):
    with pytest.raises(UserError, match="where there is a network: python -m phenop") as caught:
        fetch_weights(MODEL, tmp_path, endpoint="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "nobody_knows.this"])
def test_a_name_without_weights_is_refused(name):
    with pytest.raises(UserError, match=r"wanted NAME\.TAG"):
        find_source(name)


def test_missing_weights_end_in_one_line_before_any_job(tmp_path):
    raw = {
        "data": str(tmp_path),
        "screens": {"s": {"source": "simulated", "experiments": {"e": {}}}},
        "encoders": {"dino": {"kind": "timm", "preset": "DINOv2-S/14"}},
    }
    wiring = Wiring(load_config(raw), Path(__file__).parent)
    with pytest.raises(UserError, match=f"phenopipe.embed.fetch {MODEL} --folder") as caught:
        wiring.weights("dino")
    assert "\n" not in str(caught.value)
    file = tmp_path / "weights" / f"{MODEL}.safetensors"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    assert wiring.weights("dino") == [str(file)]
