"""Micro metrics: sampled measurements inside attention, one JSON line each."""

from sah.metric_logging.configuration import MetricLogging
from sah.metric_logging.logger import MicroMetricLogger
from sah.metric_logging.metrics import AttentionMetrics

__all__ = ["AttentionMetrics", "MetricLogging", "MicroMetricLogger"]
