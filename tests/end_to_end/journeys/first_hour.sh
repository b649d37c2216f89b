# The first hour: an experiment, a typing mistake, a method and its options, a sweep, the results.
# The model `induction` has weights set by hand: it answers needle questions, in seconds, on a CPU.

sah
# >   sah run model=tiny benchmark=mock attention=quest    # takes seconds
# > next: sah run model=tiny benchmark=mock

# One experiment: a model, an attention, a benchmark.
sah run model=induction benchmark.samples=8 benchmark.context_tokens=512 attention=dense
# > induction dense ruler niah_single_1
# > niah_single_1 1.000 0.000 8
# > density 1.000 rows read 1.000 output error - recall -
# > outputs/induction/dense/ruler_niah_single_1/...

# The same experiment again is read, not computed, however it is spelled.
sah run attention=dense benchmark.context_tokens=512 benchmark.samples=8 model=induction
# > niah_single_1 1.000 0.000 8
ls outputs/induction/dense/ruler_niah_single_1/*/results.json
# > outputs/induction/dense/ruler_niah_single_1/.../results.json
test "$(ls outputs/induction/dense/ruler_niah_single_1 | wc -l)" = 1

# Mistakes are one message, and nothing runs.
sah run attention=qest || echo "exit status $?"
# > Could not find 'attention/qest': did you mean quest?...
# > exit status 1
sah run attention=quest sparse_attention.maskers.quest.pagesize=8 || echo "exit status $?"
# > ...pagesize is not a key of the configuration; did you mean ...quest.page_size?
# > exit status 1

# What a method is, its options, and its paper.
sah help streaming_llm
# > attention=streaming_llm conf/sparse_attention/streaming_llm.yaml
# > masker=sink conf/masker/sink.yaml
# > # Keys to add; 4 as in the paper.
# > Xiao et al. (2023). Efficient Streaming Language Models with Attention Sinks.

# A sweep: dense is complete already; the other two share the model and each prefill.
sah run -m model=induction benchmark.samples=8 benchmark.context_tokens=512 \
    attention=dense,streaming_llm,sparse
# > ... 3 experiments: 1 finished already, 0 duplicates, 2 to run
# > 2 done, 1 finished
# > dense 100.0 ...
# > sparse 100.0 ...
# > streaming_llm ...
# > next: sah compare

sah status
# > 3 done
# > next: sah report
sah report --by attention
# > attention results score ...
# > sparse 1 100.0 ...
sah compare
# > sparse ... at ceiling
# > streaming_llm ... no: worse...
sah report --format html --output report.html
# > report.html
test "$(wc -c < report.html)" -lt 1000000
