"""A report is one file, says what it is told and nothing else."""

import os
import re
from html.parser import HTMLParser

import pytest
import torch

from vdm.pipelines.clip import Clip
from vdm.pipelines.report import Report


class Checker(HTMLParser):
    """Remembers tags that were opened and not closed, and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_needs_no_other_file_and_is_well_formed(tmp_path):
    clip = Clip(torch.rand(1, 3, 4, 6, 8), 8.0)
    report = Report("Clips & scores", "what was made")
    report.section("Words to <video>", "eight captions")
    report.clips([("a red circle", clip), ("a <b> bar", clip)])
    report.table(("score", "value"), [("whole caption", "97 %"), ("n", 512)])
    report.curve([(0, 1.5), (10, 1.0), (20, 0.75)], "step", "loss")
    page = report.save(tmp_path / "new" / "report.html").read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.addresses) == 2
    assert all(address.startswith("data:image/webp;base64,") for address in checker.addresses)
    for said in ("Clips &amp; scores", "Words to &lt;video&gt;", "a &lt;b&gt; bar", "97 %", "512"):
        assert said in page
    assert "1.500" in page
    assert "0.750" in page


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        Report("new").save(path)
    assert path.read_text() == "old"


def test_nothing_is_drawn_from_one_point():
    report = Report("r")
    report.curve([(0, 1.0)], "x", "y")
    report.note("")
    assert report.body == []


def test_a_flat_curve_is_drawn():
    report = Report("r")
    report.curve([(0, 1.0), (1, 1.0)], "x", "y")
    assert not re.search("nan|inf", report.body[0])
