"""Tags of scalable targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse

from controlplane.localcloud.aws.fidelity.patch import around, put


def repair() -> None:
    """AWS: RegisterScalableTarget takes tags, ListTagsForResource returns them (Application Auto
    Scaling API Reference). moto: ignores them and does not know the second call, without which
    Terraform cannot apply an `aws_appautoscaling_target`."""
    tags: dict[str, dict[str, str]] = {}

    @around(ApplicationAutoScalingResponse, "register_scalable_target")
    def keeps_tags(register: Callable[..., str], self: Any) -> str:
        answer = register(self)
        tags.setdefault(json.loads(answer)["ScalableTargetARN"], {}).update(self._get_param("Tags") or {})
        return answer

    def list_tags_for_resource(self: Any) -> str:
        return json.dumps({"Tags": tags.get(self._get_param("ResourceARN"), {})})

    def tag_resource(self: Any) -> str:
        tags.setdefault(self._get_param("ResourceARN"), {}).update(self._get_param("Tags"))
        return "{}"

    def untag_resource(self: Any) -> str:
        for key in self._get_param("TagKeys"):
            tags.get(self._get_param("ResourceARN"), {}).pop(key, None)
        return "{}"

    for action in (list_tags_for_resource, tag_resource, untag_resource):
        put(ApplicationAutoScalingResponse, action.__name__, action)
