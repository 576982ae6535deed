"""QHNetV2 (``network`` says where it deviates from the paper)."""

from model.architectures.declaration import declare
from model.architectures.qhnetv2.config import QHNetV2Config
from model.architectures.qhnetv2.network import QHNetV2
from model.architectures.qhnetv2.tiny import TINY

DECLARATION = declare(QHNetV2Config, QHNetV2, tiny=TINY, messages="pairs", weightless=frozenset({"norm_floors"}))
