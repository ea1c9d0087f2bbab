"""A HorizontalPodAutoscaler on measured load, with pods on nodes of both engines."""

import pytest

from tests.lab.faulty import Faulty
from tests.lab.mastering import all_ready, eventually, mastered

pytestmark = pytest.mark.faults
BUSY = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: busy}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: busy}}}}
  template:
    metadata: {{labels: {{app: busy}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: busy
          image: "{image}"
          command: [sh, -c, "while :; do :; done"]
          resources: {{requests: {{cpu: 10m}}, limits: {{cpu: 50m}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: busy}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: busy}}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 50}}}}}}]
"""


def test_busy_pods_get_company(faulty: Faulty) -> None:
    manifest = faulty.korch.cwd / "busy.yml"
    manifest.write_text(BUSY.format(image=faulty.image()))
    with mastered(faulty):
        faulty.korch("apply", "-f", str(manifest), "--no-wait")
        eventually("four of them", lambda: all_ready(faulty, "busy-", 4))
        status = faulty.korch.objects("hpa", "busy")[0]["status"]
        assert status["desiredReplicas"] == 4
        assert status["currentMetrics"][0]["resource"]["current"]["averageUtilization"] > 60
        states = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
        assert states["ScalingActive"] == ("True", "ValidMetricFound")
        assert states["ScalingLimited"] == ("True", "TooManyReplicas")
        faulty.korch("delete", "hpa", "busy")
        faulty.korch("delete", "busy")
