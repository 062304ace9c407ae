from weightfold.train.progress import Progress, progress_bar


def test_a_function_hears_instead_of_the_bar(capsys):
    heard = []
    with progress_bar(heard.append, "counting") as show:
        show(Progress(1, 4, "one"))
        show(Progress(4, 4))
    assert heard == [Progress(1, 4, "one"), Progress(4, 4, "")]
    assert capsys.readouterr().out == ""


def test_a_bar_shows_text_as_it_is(capsys):
    with progress_bar(True, "counting") as show:
        show(Progress(2, 4, "d in [1, 2]"))
    shown = capsys.readouterr().out
    assert "counting" in shown and "50%" in shown and "d in [1, 2]" in shown


def test_nothing_is_shown_if_so_asked(capsys):
    with progress_bar(False, "counting") as show:
        show(Progress(2, 4, "one"))
    assert capsys.readouterr().out == ""
