"""Names of the attention metrics in micro_metrics.jsonl."""

DENSITY = "research_attention_density"
OUTPUT_ERROR = "research_attention_output_error"
RECALL = "research_attention_recall"
