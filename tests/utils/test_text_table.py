from utils.table import markdown_table, text_table


def test_names_are_aligned_left_and_numbers_right():
    rows = [["", "clips", "from"], ["train", 1200, "you"], ["b", 3, ""]]
    assert text_table(rows, left=(0, 2), indent=2).splitlines() == [
        "         clips  from",
        "  train   1200  you",
        "  b          3",
    ]


def test_markdown():
    table = markdown_table(["key", "what"], [["a|b", 1], ["c", "d"]])
    assert table == "| key | what |\n| --- | --- |\n| a\\|b | 1 |\n| c | d |"
