"""Every scorer against cases computed by hand."""

import string

import pytest

from sah.benchmarks import scorers

CATS = {"options": ["a hat", "a grey cat", "c", "d"]}
FUNCTIONS = {"options": ["f", "run_all", "g", "h"]}

ROOMS = {"all_classes": ["garden", "office"]}
CASES = [
    # Exact match and containment.
    ("exact_match", "Otto", ["Otto"], {}, 1.0),
    ("exact_match", "otto", ["OTTO"], {}, 1.0),
    ("exact_match", "  Otto\n", ["Otto"], {}, 1.0),
    ("exact_match", "Otto", [" Otto "], {}, 1.0),
    ("exact_match", "Otto the cat", ["Otto"], {}, 0.0),
    ("exact_match", "Ott", ["Otto"], {}, 0.0),
    ("exact_match", "Otto.", ["Otto"], {}, 0.0),
    ("exact_match", "", ["Otto"], {}, 0.0),
    ("exact_match", " \n", ["Otto"], {}, 0.0),
    ("exact_match", "b", ["a", "b"], {}, 1.0),
    ("exact_match", "c", ["a", "b"], {}, 0.0),
    ("exact_match", "STRASSE", ["Straße"], {}, 1.0),
    ("exact_match", "ÉCOLE", ["école"], {}, 1.0),
    ("exact_match", "ecole", ["école"], {}, 0.0),
    ("exact_match", "漢字", ["漢字"], {}, 1.0),
    ("contained_share", "It is 42.", ["42"], {}, 1.0),
    ("contained_share", "It is 42.", ["42", "43"], {}, 0.5),
    ("contained_share", "43 42", ["42", "43"], {}, 1.0),
    ("contained_share", "one", ["one", "two", "three", "four"], {}, 0.25),
    ("contained_share", "GENTLE-River", ["gentle-river"], {}, 1.0),
    ("contained_share", "gentle river", ["gentle-river"], {}, 0.0),
    ("contained_share", "", ["42", "43"], {}, 0.0),
    ("contained_share", "ÜBER", ["über"], {}, 1.0),
    ("contained_share", "4 2", ["42"], {}, 0.0),
    # F1: normalised words, best reference.
    ("token_f1", "the cat, Otto!", ["Otto cat"], {}, 1.0),
    ("token_f1", "Otto the grey cat", ["Otto"], {}, 2 * (1 / 3) * 1 / (1 / 3 + 1)),
    ("token_f1", "b c", ["x", "b c d", "b"], {}, 0.8),
    ("token_f1", "", ["Otto"], {}, 0.0),
    ("token_f1", "Otto", [""], {}, 0.0),
    ("token_f1", "1,000 cats", ["1000 cats"], {}, 1.0),
    ("token_f1_chinese", "一只猫。", ["一只猫"], {}, 1.0),
    # Four words, one of which is the university.
    ("token_f1_chinese", "我来到北京清华大学", ["清华大学"], {}, 0.4),
    ("token_f1_chinese", "", ["猫"], {}, 0.0),
    ("character_f1_chinese", "一只灰猫", ["一只猫"], {}, 6 / 7),
    ("character_f1_chinese", "狗", ["猫", "狗！"], {}, 1.0),
    ("token_f1_unaccented", "Cafe", ["Café"], {}, 1.0),
    ("token_f1_unaccented", "Strasse der ﬁne Lodz", ["Straße der fine Łódź"], {}, 1.0),
    # As published: the mark is removed before words are written in ASCII.
    ("token_f1_unaccented", "it’s", ["it's"], {}, 0.0),
    ("token_f1_unaccented", "it’s", ["it’s"], {}, 1.0),
    ("token_f1_unaccented", "Москва", ["Moskva"], {}, 0.0),
    ("normalised_exact_match", "The Cat.", ["cat"], {}, 1.0),
    ("normalised_exact_match", "cats", ["cat"], {}, 0.0),
    ("contained_any", "it is B or c", ["a1", "b"], {}, 1.0),
    ("contained_any", "", ["b"], {}, 0.0),
    # Classification: classes named, except those contained in the right class's name.
    ("classification", "It is Animal", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 1.0),
    ("classification", "Plant, Animal", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 0.5),
    ("classification", "Plant", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 0.0),
    ("classification", "", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 0.0),
    (
        *("classification", "Wild Animal", ["Wild Animal"]),
        *({"all_classes": ["Animal", "Wild Animal"]}, 1.0),
    ),
    (
        *("classification", "zoo: Wild Animal", ["Wild Animal"]),
        *({"all_classes": ["zoo", "Animal", "Wild Animal"]}, 0.5),
    ),
    # As published, the class after an ignored one is not checked.
    ("classification", "abc", ["abc"], {"all_classes": ["a", "b", "abc"]}, 0.5),
    ("count", "There are 5, or 5 and not 6", ["5"], {}, 2 / 3),
    ("count", "five", ["5"], {}, 0.0),
    ("count", "1,005", ["5"], {}, 0.0),
    ("paragraph_retrieval", "Paragraph 12", ["Paragraph 12"], {}, 1.0),
    ("paragraph_retrieval", "Paragraphs 1 to 12", ["Paragraph 12"], {}, 0.5),
    ("paragraph_retrieval", "段落7", ["段落7"], {}, 1.0),
    ("paragraph_retrieval", "none", ["段落7"], {}, 0.0),
    ("code_similarity", "\n```python\n# doc\nreturn x\ny", ["return x"], {}, 1.0),
    ("code_similarity", "// doc\nreturn x", ["return x"], {}, 1.0),
    ("code_similarity", "abcd", ["abce"], {}, 0.75),
    ("code_similarity", "Xab", ["Xab"], {}, 1.0),
    ("code_similarity", "", ["return x"], {}, 0.0),
    ("code_similarity", "```", ["return x"], {}, 0.0),
    # Choices.
    ("stated_choice", "The correct answer is **(B)**.", ["B"], {}, 1.0),
    ("stated_choice", "The correct answer is B", ["B"], {}, 1.0),
    ("stated_choice", "B", ["B"], {}, 0.0),
    ("stated_choice", "The correct answer is (A), not (B)", ["B"], {}, 0.0),
    ("stated_choice", "(A) (B) (C) (D)", ["B"], {}, 0.0),
    ("stated_choice", "", ["B"], {}, 0.0),
    ("choice_kvpress", "B", ["B"], {}, 1.0),
    ("choice_kvpress", "The answer is: B.", ["B"], {}, 1.0),
    ("choice_kvpress", "A, B, C, D", ["B"], {}, 0.0),
    ("choice_kvpress", "", ["B"], {}, 0.0),
    ("choice_kvpress", "a grey cat", ["B"], CATS, 1.0),
    ("choice_kvpress", "answer is a grey cat", ["B"], CATS, 1.0),
    ("code_debug_kvpress", "The correct option is: C", ["C"], {}, 1.0),
    ("code_debug_kvpress", "run_all fails", ["B"], FUNCTIONS, 1.0),
    # As published, a quote before the name becomes a leading space.
    ("code_debug_kvpress", "`run_all` fails", ["B"], FUNCTIONS, 0.0),
    ("code_debug_kvpress", "answer: g", ["B"], FUNCTIONS, 0.0),
    ("code_debug_kvpress", "", ["B"], FUNCTIONS, 0.0),
    ("choice_kvpress", "B? No, C", ["C"], {}, 1.0),
    ("choice_kvpress", "I say C because\nB is wrong", ["C"], {}, 1.0),
    ("choice_kvpress", "B, not A", ["B"], {}, 1.0),
    ("choice_kvpress", "It is X or B and not C", ["B"], {}, 1.0),
    ("choice_kvpress", "the answer is: a grey cat", ["B"], CATS, 1.0),
    ("choice_kvpress", "my answer: a grey cat", ["B"], CATS, 1.0),
    ("choice_kvpress", "the option is a grey cat", ["B"], CATS, 1.0),
    ("choice_kvpress", "answer is 'a grey cat'", ["B"], CATS, 1.0),
    ("choice_kvpress", "the answer is a grey cat, since the answer is a hat", ["B"], CATS, 1.0),
    ("choice_kvpress", "It is (B)", ["B"], {}, 1.0),
    ("choice_kvpress", "the BC or B or C", ["B"], {}, 0.0),
    ("choice_openbmb", "B because", ["B"], {}, 1.0),
    ("choice_openbmb", "Answer: (B)", ["B"], {}, 0.0),
    ("choice_openbmb", "It is (B)", ["B"], {}, 0.0),
    ("choice_openbmb", "It is B and not C", ["B"], {}, 1.0),
    ("choice_openbmb", "A grey cat", ["B"], CATS, 0.0),
    ("choice_openbmb", "the answer is a grey cat", ["B"], CATS, 1.0),
    # As published, AB is a choice too.
    ("choice_openbmb", "the AB or B", ["B"], {}, 0.0),
    ("choice_openbmb", "", ["B"], {}, 0.0),
    ("code_debug_openbmb", "B", ["B"], FUNCTIONS, 0.0),
    ("code_debug_openbmb", "(B)", ["B"], FUNCTIONS, 0.0),
    ("code_debug_openbmb", "B. run_all", ["B"], FUNCTIONS, 1.0),
    ("code_debug_openbmb", "B: run_all", ["B"], FUNCTIONS, 1.0),
    ("code_debug_openbmb", "The answer is: run_all", ["B"], FUNCTIONS, 1.0),
    ("code_debug_openbmb", "answer: g", ["B"], FUNCTIONS, 0.0),
    ("code_debug_openbmb", "", ["B"], FUNCTIONS, 0.0),
    ("dialogue_kvpress", "It is Ace.", ["ACE", "ACE ROTHSTEIN"], {}, 1.0),
    ("dialogue_kvpress", "the palace", ["ACE", "ACE ROTHSTEIN"], {}, 1.0),
    ("dialogue_kvpress", "Rothstein", ["ACE", "ACE ROTHSTEIN"], {}, 0.0),
    ("dialogue_kvpress", "", ["ACE"], {}, 0.0),
    ("dialogue_openbmb", "It is Ace.", ["ACE", "ACE ROTHSTEIN"], {}, 1.0),
    ("dialogue_openbmb", "the palace", ["ACE", "ACE ROTHSTEIN"], {}, 0.0),
    ("dialogue_openbmb", "Ace Rothstein", ["ACE ROTHSTEIN", "ACE"], {}, 0.0),
    ("dialogue_openbmb", "", ["ACE"], {}, 0.0),
    ("code_debug_kvpress", "it is not A", ["C"], {}, 0.0),
    ("code_debug_kvpress", "I think it is C", ["C"], {}, 1.0),
    ("code_debug_kvpress", "It is: run_all", ["B"], FUNCTIONS, 1.0),
    ("code_debug_kvpress", "answer: run_all", ["B"], FUNCTIONS, 1.0),
    ("code_debug_kvpress", "answer is: Option run_all", ["B"], FUNCTIONS, 1.0),
    ("code_debug_kvpress", "answer is: option run_all", ["B"], FUNCTIONS, 1.0),
    ("first_choice", "(B) since A is wrong", ["(B) a grey cat"], {}, 1.0),
    ("first_choice", "A, B, C, D", ["B"], {}, 0.0),
    ("first_choice", "Bob", ["B"], {}, 0.0),
    ("first_choice", "b", ["B"], {}, 0.0),
    ("first_choice", "", ["B"], {}, 0.0),
    # Numbers.
    ("first_integer", "The key is 71432. Or 9.", ["71432"], {}, 1.0),
    ("first_integer", "9 or 71432", ["71432"], {}, 0.0),
    ("first_integer", "", ["71432"], {}, 0.0),
    ("first_number", "It is 7.0", ["7"], {}, 1.0),
    ("first_number", "-3", ["3"], {}, 0.0),
    ("first_number", "1,234", ["1234"], {}, 1.0),
    ("first_number", "1,234.5", ["1234.5"], {}, 1.0),
    ("first_number", "12,33", ["12"], {}, 1.0),
    ("first_number", "3,4,5", ["3"], {}, 1.0),
    ("first_number", "3,400,5", ["3"], {}, 1.0),
    ("first_number", "0,345", ["0"], {}, 1.0),
    # Equal as floats.
    ("first_number", "9007199254740993", ["9007199254740992"], {}, 0.0),
    ("first_number", "none", ["7"], {}, 0.0),
    ("last_integer", "It returns -42.", ["-42"], {}, 1.0),
    ("last_integer", "42 is it", ["42"], {}, 0.0),
    ("last_integer", "It is +42", ["42"], {}, 1.0),
    ("last_integer", "It is 4_2", ["42"], {}, 1.0),
    ("last_integer", "It is 4²", ["4"], {}, 0.0),
    ("last_integer", "", ["42"], {}, 0.0),
    ("leading_integers", "[1, 4, 9]", ["1", "4", "8"], {}, 2 / 3),
    ("leading_integers", "9 1 4", ["1", "4"], {}, 0.0),
    ("key_value", '"00a0-6bcb".', ["00a0-6bcb"], {}, 1.0),
    ("key_value", "x00a0-6bcb", ["00a0-6bcb"], {}, 0.0),
    ("competition_integer", r"so 5. \boxed{12} no, \boxed{033}", ["33"], {}, 1.0),
    ("competition_integer", r"\boxed{x = 33}", ["033"], {}, 1.0),
    ("competition_integer", "The answer is 33, not 34", ["33"], {}, 1.0),
    ("competition_integer", "ANSWER: 33\nor 34", ["33"], {}, 1.0),
    # 1,033 is a number out of range; 12,33 is two.
    ("competition_integer", "The answer is 1,033", ["33"], {}, 0.0),
    ("competition_integer", r"\boxed{1,033}", ["33"], {}, 0.0),
    ("competition_integer", r"\boxed{12,33}", ["33"], {}, 1.0),
    ("competition_integer", r"\boxed{12,33}", ["1233"], {}, 0.0),
    ("competition_integer", "3,4,5", ["5"], {}, 1.0),
    ("competition_integer", "3,4,5", ["345"], {}, 0.0),
    ("competition_integer", "so boxed{33} and not 34", ["33"], {}, 1.0),
    ("competition_integer", r"\boxed{33} … so \boxed{", ["33"], {}, 1.0),
    ("competition_integer", "999", ["999"], {}, 1.0),
    ("competition_integer", "000", ["0"], {}, 1.0),
    ("competition_integer", "1000", ["1000"], {}, 0.0),
    ("competition_integer", r"\boxed{-33}", ["33"], {}, 0.0),
    ("competition_integer", r"\boxed{33.5}", ["33"], {}, 0.0),
    ("competition_integer", r"\boxed{33.0}", ["33"], {}, 1.0),
    ("competition_integer", "that is 67-33", ["33"], {}, 1.0),
    ("competition_integer", "a 33cm rope", ["33"], {}, 0.0),
    ("competition_integer", r"\boxed{33} of 34", ["33"], {}, 1.0),
    ("competition_integer", "we get 12\nthus 33\n", ["33"], {}, 1.0),
    ("competition_integer", r"33 \boxed{34}", ["33"], {}, 0.0),
    ("competition_integer", "", ["33"], {}, 0.0),
    # Percentages: half for ten points, a quarter for twenty.
    ("exponential_similarity", "40%", ["40%"], {}, 1.0),
    ("exponential_similarity", "About 50.0% are, or 40%", ["40%"], {}, 0.5),
    ("exponential_similarity", "20%", ["40%"], {}, 0.25),
    ("exponential_similarity", "45%", ["40%"], {}, 0.7071068),
    ("exponential_similarity", "0%", ["100%"], {}, 1 / 1024),
    ("exponential_similarity", "60%", ["40%", "50%"], {}, 0.5),
    ("exponential_similarity", "40", ["40%"], {}, 0.0),
    ("exponential_similarity", "most", ["40%"], {}, 0.0),
    ("exponential_similarity", "", ["40%"], {}, 0.0),
    # Orders: the share of pairs in the right order.
    ("concordance_index", "3, 1, 4, 2", ["3, 1, 4, 2"], {}, 1.0),
    ("concordance_index", "2, 4, 1, 3", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "1, 3, 4, 2", ["3, 1, 4, 2"], {}, 5 / 6),
    ("concordance_index", "Summaries 3,1,\n2, 4.", ["3, 1, 4, 2"], {}, 5 / 6),
    ("concordance_index", "10, 2, 1", ["1, 2, 10"], {}, 0.0),
    ("concordance_index", "3, 1, 4", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "3, 1, 4, 2, 2", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "3, 1, 4, 5", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "3 1 4 2", ["3, 1, 4, 2"], {}, 1.0),
    ("concordance_index", "2\n1", ["2, 1"], {}, 1.0),
    ("concordance_index", "2, 1,", ["2, 1"], {}, 1.0),
    ("concordance_index", "1,, 2", ["1, 2"], {}, 1.0),
    ("concordance_index", "Summary 2; Summary 1", ["2, 1"], {}, 1.0),
    # As published, anything else is dropped, and joins digits.
    ("concordance_index", "2;1", ["2, 1"], {}, 0.0),
    ("concordance_index", "in this order", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "1", ["1"], {}, 1.0),
    # Clozes: JSON or Python literals, never evaluated.
    (
        "cloze_exact",
        '{"<m-0>": "Otto", "<m-1>": "X"}',
        ['{"<m-0>": "Otto", "<m-1>": "Y"}'],
        {},
        0.5,
    ),
    ("cloze_exact", "{'<m-0>': 'Otto'} I think", ['{"<m-0>": "Otto"}'], {}, 1.0),
    ("cloze_exact", '{"<m-0>":\n "Otto"}', ['{"<m-0>": "Otto"}'], {}, 1.0),
    ("cloze_exact", "__import__('os').abort()", ['{"<m-0>": "Otto"}'], {}, 0.0),
    ("cloze_exact", "{1/0: 2}", ['{"<m-0>": "Otto"}'], {}, 0.0),
    ("cloze_partial", '{"<m-0>": "Otto Grey"}', ['{"<m-0>": "Otto Black"}'], {}, 1.0),
    ("cloze_partial", '{"<m-0>": 7}', ['{"<m-0>": "Otto"}'], {}, 0.0),
    ("cloze_partial", '{"<m-1>": "Otto"}', ['{"<m-0>": "None", "<m-1>": "Otto"}'], {}, 0.5),
    ("cloze_exact", "{{'<m-0>': 'Otto'}}", ['{"<m-0>": "Otto"}'], {}, 0.0),
    ("cloze_exact", '{"<m-0>": "O\\u0074to"}', ['{"<m-0>": "Otto"}'], {}, 1.0),
    ("cloze_exact", '{"<m-0>": "It\'s"}', ['{"<m-0>": "It\'s"}'], {}, 1.0),
    # Lists.
    ("list_subspan", "['The cat Otto']", ["Otto", "Anna"], {"several": False}, 1.0),
    ("list_subspan", "Otto the cat", ["Otto"], {}, 1.0),
    ("list_subspan", "Final Answer: ['Anna']", ["Otto"], {}, 0.0),
    ("list_subspan", "", ["Otto"], {}, 0.0),
    ("list_subspan", '["Otto", "Anna B"]', ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_subspan", '["Anna Otto"]', ["Anna", "Otto"], {"several": True}, 0.0),
    ("list_subspan", "['Anna's cat']", ["annas cat"], {}, 1.0),
    # Each reference needs a different answer, whatever their order.
    ("list_subspan", '["Anna Otto", "Anna"]', ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_subspan", "['x', 'y']", ["Anna", "Otto"], {"several": True}, 0.0),
    # An empty answer is none, though it is part of every reference.
    ("list_subspan", "Final Answer: []", ["Anna", "Otto"], {"several": True}, 0.0),
    ("list_subspan", "Final Answer: []", ["Answer"], {}, 0.0),
    ("list_subspan", "['', 'the', '.']", ["Anna", "Otto"], {"several": True}, 0.0),
    ("list_subspan", "Final Answer: The.", ["Anna"], {"several": True}, 0.0),
    ("list_subspan", "['', 'Otto']", ["Otto"], {}, 1.0),
    # Nor does a reference that normalises to nothing stand in every answer.
    ("list_subspan", "['Anna']", ["A"], {}, 0.0),
    ("list_subspan", "[{'a'}, {{'b'}}]", ["Otto"], {}, 0.0),
    ("list_subspan", "Final Answer:\nOtto", ["Otto"], {}, 1.0),
    # As Google's script reads answers.
    ("list_subspan", "['Otto']", ["Otto"], {"strict": True}, 1.0),
    ("list_subspan", "x\nFinal Answer: ['Otto']", ["Otto"], {"strict": True}, 1.0),
    ("list_subspan", "Final Answer: Otto", ["Otto"], {"strict": True}, 0.0),
    ("list_subspan", "[see] this\nFinal Answer: ['Otto']", ["Otto"], {"strict": True}, 0.0),
    ("list_subspan", "[see] this\nFinal Answer: ['Otto']", ["Otto"], {}, 1.0),
    ("list_subspan", "[null, 'Otto']", ["Otto"], {"strict": True}, 0.0),
    ("list_subspan", "['']", ["Anna"], {"strict": True, "several": True}, 1.0),
    ("list_exact", "['The Otto']", ["Otto"], {}, 1.0),
    ("list_exact", "['Otto', 'x']", ["Otto"], {}, 1.0),
    ("list_exact", "", ["Otto"], {}, 0.0),
    ("list_exact", "**`Otto`**\nsince I say so", ["Otto"], {}, 1.0),
    ("list_exact", "I think\nFinal Answer: Otto", ["Otto"], {}, 1.0),
    ("list_exact", "['Otto', `'Anna'`]", ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_exact", "**['Otto', **'Anna']**", ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_exact", "['Otto', 'Anna']", ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_exact", "['Otto']", ["Anna", "Otto"], {"several": True}, 0.0),
    ("list_f1", "['Otto the cat']", ["Otto"], {}, 2 / 3),
    ("list_f1", "", ["Otto"], {}, 0.0),
    ("list_coverage", "['Otto', 'x']", ["Anna", "Otto"], {"several": True}, 0.5),
    # Sets: F1 of the last line.
    ("node_set_f1", "Final Answer: [a, b]", ["Final Answer: [b, a]"], {}, 1.0),
    ("node_set_f1", "a, then\nFinal Answer: [a,a]\n\n", ["Final Answer: [a, b]"], {}, 2 / 3),
    ("node_set_f1", "Final Answer: [a, b]\nI am sure.", ["Final Answer: [a, b]"], {}, 0.0),
    ("node_set_f1", "[a, b]", ["Final Answer: [a, b]"], {}, 0.0),
    ("node_set_f1", "Final Answer: [a, b", ["Final Answer: [a, b]"], {}, 0.0),
    ("node_set_f1", "] Final Answer: [a, b", ["Final Answer: [a, b]"], {}, 0.0),
    ("node_set_f1", "Final Answer: []", ["Final Answer: [a, b]"], {}, 0.0),
    ("node_set_f1", "Final Answer: [ ]", ["Final Answer: []"], {}, 1.0),
    ("node_set_f1", "", ["Final Answer: []"], {}, 0.0),
    ("node_set_f1", "Final Answer: [A]", ["Final Answer: [a]"], {}, 0.0),
    # Similarity: the ratio of what follows the prefix.
    ("prefixed_similarity", "Xyabcd", ["Xyabcd"], {"prefix": "Xy"}, 1.0),
    ("prefixed_similarity", "\nXy abcd\n", ["Xyabcd"], {"prefix": "Xy"}, 1.0),
    ("prefixed_similarity", "abcd", ["Xyabcd"], {"prefix": "Xy"}, 0.0),
    ("prefixed_similarity", "xyabcd", ["Xyabcd"], {"prefix": "Xy"}, 0.0),
    ("prefixed_similarity", "Xybcde", ["Xyabcd"], {"prefix": "Xy"}, 0.75),
    ("prefixed_similarity", "Xy", ["Xyabcd"], {"prefix": "Xy"}, 0.0),
    ("prefixed_similarity", "bcde", ["abcd", "bcd"], {}, 6 / 7),
    # Of a longer answer the beginning is compared, and all of it counts.
    ("prefixed_similarity", f"ab{'x' * 98}", ["ab"], {}, 4 / 102),
    ("prefixed_similarity", f"{'x' * 98}ab", ["ab"], {}, 0.0),
    # Overlap.
    ("rouge_l", "the cat sat on the mat", ["the cat lay on the mat"], {}, 0.8),
    ("rouge_l", "", ["the cat"], {}, 0.0),
    ("rouge_l", "...", ["the cat"], {}, 0.0),
    ("rouge_l", "the cat", ["..."], {}, 0.0),
    ("rouge_l", "dog", ["cat", "dog"], {}, 1.0),
    ("rouge_l_recall", "a b", ["a b c d"], {}, 0.5),
    ("rouge_1_recall", "d a", ["a b c d"], {}, 0.5),
    ("rouge_2_recall", "a b c", ["a b c d"], {}, 2 / 3),
    ("rouge_l_chinese", "今天天气很好", ["今天天气很好"], {}, 1.0),
    ("rouge_l_sum", "a b\nc d", ["a b\nc d"], {}, 1.0),
    ("rouge_geometric_mean", "the cats sat down", ["the cat sat down"], {}, 1.0),
    # Rouge-1 and -L are 2/3, Rouge-2 is 1/2.
    ("rouge_geometric_mean", "the cat", ["the cat sat down"], {}, (2 / 9) ** (1 / 3)),
    ("rouge_geometric_mean", "", ["the cat"], {}, 0.0),
    ("bleu_1", "a b x y", ["a b c d"], {}, 0.5),
    ("bleu_4", "a b c d e", ["a b c d f"], {}, 0.5),
    ("bleu_4", "", ["a b c d"], {}, 0.0),
    ("meteor", "the cat sat", ["the cat sat"], {}, 1 - 0.5 * (1 / 3) ** 3),
    ("meteor", "", ["the cat"], {}, 0.0),
    ("only_classes", "In the Garden. Not the office", ["garden"], ROOMS, 1.0),
    ("only_classes", "the garden or the office", ["garden"], ROOMS, 0.0),
    ("only_classes", "gardens", ["garden"], ROOMS, 0.0),
    ("only_classes", "", ["garden"], ROOMS, 0.0),
    ("first_identifier", "```python\ndef textwrap.dedent(text)", ["dedent"], {}, 1.0),
    ("first_identifier", "`dedent` and indent", ["dedent"], {}, 1.0),
    ("first_identifier", "indent, then dedent", ["dedent"], {}, 0.0),
    ("first_identifier", "...", ["dedent"], {}, 0.0),
]


@pytest.mark.parametrize(("name", "prediction", "references", "extras", "score"), CASES)
def test_a_score_equals_the_one_computed_by_hand(name, prediction, references, extras, score):
    assert getattr(scorers, name)(prediction, references, **extras) == pytest.approx(
        score, abs=1e-6
    )


def test_every_scorer_has_a_case():
    elsewhere = {"choice_simple_evals", "final_choice", "final_number", "math_equivalence"}
    assert {name for name, *_ in CASES} | elsewhere == set(scorers.__all__)


@pytest.mark.parametrize("name", ["exponential_similarity", "concordance_index", "node_set_f1"])
def test_a_malformed_reference_is_an_error(name):
    with pytest.raises(ValueError, match="reference"):
        getattr(scorers, name)("40%", ["most of them"])


def test_the_best_reference_counts():
    for name in ("token_f1", "token_f1_chinese", "rouge_l", "rouge_l_sum", "meteor"):
        scorer = getattr(scorers, name)
        assert scorer("the cat sat", ["dog", "the cat"]) == pytest.approx(
            max(scorer("the cat sat", ["dog"]), scorer("the cat sat", ["the cat"]))
        )


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The  Cat's an-swer; a b.", "cats answer b"),
        ("A a AN the", ""),
        ("1,000.5", "10005"),
        ("Über the École", "über école"),
        ("theatre an", "theatre"),
        (string.punctuation, ""),
    ],
)
def test_normalisation_follows_squad(text, normalised):
    from sah.benchmarks.scorers.text import normalise

    assert normalise(text) == normalised
