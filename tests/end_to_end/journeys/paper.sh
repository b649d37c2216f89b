# From a sweep to the tables of a paper.

sah run -m hydra/launcher=basic model=induction benchmark.samples=4 benchmark.context_tokens=800 \
    benchmark.subset=niah_single_1,niah_multikey_1 attention=dense,streaming_llm,sparse seed=1,2
# > 12 done
# > next: sah compare --pool seed

# A row for each method: means over tasks and seeds, with intervals, and what they cost.
sah report --by attention --format latex --output scores.tex \
    --columns attention,score,score_interval,density,rows_read,output_error
# A row for each difference from dense, with its interval and the corrected p value.
sah compare --pool seed,benchmark.subset --format latex --output differences.tex \
    --columns method,difference,difference_interval,adjusted_p_value,pairs,verdict
sah report --columns attention,scores || echo "exit status $?"
# > sah report: --columns: 'scores' is not a column of this table; take ...score, score_interval...
# > exit status 1
grep -c '\\\\$' scores.tex differences.tex
# > scores.tex:4
# > differences.tex:3
# What a caption must say is in the comments above each table.
grep '^%.*corrected for 2' differences.tex
# > % Scores × 100, paired on identical inputs....

# The methods' papers, for \cite.
sah help streaming_llm | grep -A2 '^paper:'
# > paper:
# > Xiao et al. (2023)....

cat > paper.tex <<'END'
\documentclass{article}
\usepackage{booktabs,xcolor}
\begin{document}
\begin{table}
  \caption{Scores on RULER's needle tasks.}
  \input{scores}
\end{table}
\begin{table}
  \caption{Differences from dense attention.}
  \small\input{differences}
\end{table}
\end{document}
END

# The numbers as figures, and as a file for your own plots.
sah report --figures figures --format csv --output results.csv
# > figures/...svg
wc -l < results.csv
# > 13
