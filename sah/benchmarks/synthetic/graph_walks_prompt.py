"""Prompt of openai/graphwalks (MIT): instructions with a solved graph, and the operation."""

TASK_TEXT = """You will be given a graph as a list of directed edges. All nodes are at least \
degree 1. You will also get a description of an operation to perform on the graph.
Your job is to execute the operation on the graph and return the set of nodes that the operation \
results in. If asked for a breadth-first search (BFS), only return the nodes that are both \
reachable and exactly at that depth (not nodes at intermediate depths), and do not return the \
starting node. If asked for the parents of a node, only return the nodes that have an edge leading \
to the given node, do not return the given node itself.

Here is an example:
<begin example>

The graph has the following edges:
uvwx -> alke
abcd -> uvwx
abcd -> efgh
efgh -> uvwx

Example 1:
Operation:
Perform a BFS from node abcd and return only the nodes at exactly depth 1 (not nodes at \
intermediate depths).
Final Answer: [uvwx, efgh]

Example 2:
Operation:
Perform a BFS from node alke and return only the nodes at exactly depth 1 (not nodes at \
intermediate depths).
Final Answer: []

Example 3:
Operation:
Find the parents of node uvwx.
Final Answer: [abcd, efgh]

Example 4:
Operation:
Find the parents of node abcd.
Final Answer: []

<end example>
Here is the graph to operate on:
The graph has the following edges:
{edges}

"""
QUESTION = """
Operation:
{operation}

You should immediately return the set of nodes that the operation results in, with no additional \
text. Return your final answer as a list of nodes in the very last line of your response. For \
example, if the operation returns the set of nodes [node1, node2, node3], your response should be:
Final Answer: [node1, node2, node3]
If the operation returns the empty set, your response should be:
Final Answer: []
"""
