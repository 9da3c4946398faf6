"""The servers under test, in the order of measurement."""

from benchmarks.peers.bentoml_tutorial import BentomlTutorial
from benchmarks.peers.fastapi import AsgiEcho, FastapiEcho, FastapiJoblib
from benchmarks.peers.litserve import LitServe
from benchmarks.peers.mlflow_serve import MlflowServe
from benchmarks.peers.mlserver import MlServer
from benchmarks.peers.project import Project
from benchmarks.peers.protocol import Peer

PEERS: tuple[Peer, ...] = (
    AsgiEcho(),
    FastapiEcho(),
    Project(has_metrics=True),
    Project(has_metrics=False),
    MlflowServe(),
    FastapiJoblib(),
    BentomlTutorial(is_batching=False),
    BentomlTutorial(is_batching=True),
    MlServer(is_batching=False),
    MlServer(is_batching=True),
    LitServe(),
)
