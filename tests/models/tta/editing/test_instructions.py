import pytest

from models.tta.editing.instructions import check_task, task_of
from processors.edits import TASKS
from utils.errors import UserError


@pytest.mark.parametrize(
    ("instruction", "task"),
    [
        ("Add the sound of a bell at the end", "add"),
        ("In the middle, this should be heard: a dog barks", "add"),
        ("Put a siren in the background", "add"),
        ("I want to hear a clock", "add"),
        ("Let a cow be heard", "add"),
        ("Drop the sound of the dog barking", "drop"),
        ("Remove this sound: a man changes into a coat", "drop"),
        ("Take this out: the birds", "drop"),
        ("Keep everything but the rain", "drop"),
        ("I do not want to hear this: a baby cries", "drop"),
        ("Replace the cat with a dog", "replace"),
        ("Put a dog in the place of the cat", "replace"),
        ("Take out: a cat meows. Put in its place: a dog barks", "replace"),
        ("Turn the bell into a siren", "replace"),
        ("Instead of this: rain, let it be this: wind", "replace"),
        ("Inpaint: a dog barks", "inpaint"),
        ("Fill the gap", "inpaint"),
        ("Complete the sound where it was cut out", "inpaint"),
        ("Restore the silent part", "inpaint"),
        ("Super-resolution", "super_resolution"),
        ("Restore the high frequencies: rain falls", "super_resolution"),
        ("Make this muffled recording clear: a man adds wood to a fire", "super_resolution"),
        ("Improve the quality. It should be this: rain", "super_resolution"),
        ("Raise the sampling rate, so that the sound is less muffled", "super_resolution"),
        ("A dog", None),
        ("Addis Ababa's address", None),
    ],
)
def test_the_task_that_an_instruction_asks_for(instruction, task):
    assert task_of(instruction) == task
    assert task is None or task in TASKS


def test_a_task_that_the_editor_was_not_trained_for_is_refused():
    check_task("drop", ["add", "drop"], "here")
    check_task(None, ["add"], "here")
    with pytest.raises(UserError, match="task replace: the editor in here was not trained for it"):
        check_task("replace", ["add", "drop"], "here")
