from collections import defaultdict

import pytest

from models.tta.editing.instructions import WAYS, check_task, task_of, way_of
from preprocessors.edits.wording import TEMPLATES, sentence
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


@pytest.mark.parametrize("task", TASKS)
def test_what_the_training_asks_for_is_clear(task):
    """Each template adds or drops one sound alone, or does neither."""
    places = defaultdict(lambda: "the bell")
    for template in TEMPLATES.get(task, []):
        instruction = sentence(template.format_map(places))
        assert way_of(instruction) == WAYS.get(task), instruction


@pytest.mark.parametrize(
    ("instruction", "way"),
    [
        ("Please drop the dog", "goes"),
        ("I want you to remove the rain", "goes"),
        ("Add a bell and a dog", "comes"),
        ("Remove the dog and add a cat", None),
        ("Remove the dog and put a cat there instead", None),
        ("Add a cat and remove the dog", None),
        ("A drop of water should be heard at the end", None),
        ("There should be a water drop at the end", None),
        ("I no longer want to hear the dog", None),
        ("Let the dog not be heard", None),
        ("The dog should be heard no more", None),
        ("Put the dog's volume down", None),
        ("Only the dog should be heard", None),
        ("Put the dog out", None),
        ("Add a bell and take the dog away", None),
        ("Remove the dog, then play a bell", None),
        ("Remove the dog and let a cat meow", None),
        ("Remove this sound: a man lets a dog play", "goes"),
        ("Replace the cat with a dog", None),
        ("A dog", None),
    ],
)
def test_what_is_unclear_may_both_add_and_take_away(instruction, way):
    assert way_of(instruction) == way


def test_a_task_that_the_editor_was_not_trained_for_is_refused():
    check_task("drop", ["add", "drop"], "here")
    check_task(None, ["add"], "here")
    with pytest.raises(UserError, match="task replace: the editor in here was not trained for it"):
        check_task("replace", ["add", "drop"], "here")
