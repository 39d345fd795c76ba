import numpy as np
import pytest

from examples import medical, medical_study


@pytest.fixture(scope="module")
def studies():
    return medical_study.study(*medical_study.tumours(), (0.1, 0.001), 2)


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_the_table_has_a_row_for_each_penalty_and_rule(studies):
    head, _, *rows = cells(medical.table(studies, (0.1, 0.001)))
    assert head == ["l2", "rule", "sensitivity", "specificity", "cost", "saved"]
    rules = ["argmax", "least cost", "least cost, tempered"]
    assert [row[:2] for row in rows] == [[l2, rule] for l2 in ("0.1", "0.001") for rule in rules]
    chosen = studies[1].actions()["least cost"]
    assert rows[4][4] == f"{studies[1].costs(chosen).mean():.3f}"
    assert rows[4][2].startswith(f"{studies[1].recalls(chosen)[:, 0].mean():.3f} [")
    saved = float(rows[3][4]) - float(rows[4][4])
    assert float(rows[4][5].split()[0]) == pytest.approx(saved, abs=0.002) and not rows[3][5]


def test_the_cost_curve_passes_through_the_rules_of_the_table(studies):
    figure = medical.draw(studies, (0.1, 0.001))
    left, right = figure.axes
    for line, study in zip(left.get_lines(), studies, strict=False):
        thresholds, costs = line.get_data()
        for threshold, rule in ((1 / 11, "least cost"), (1 / 2, "argmax")):
            at = np.interp(threshold, thresholds, costs)
            assert at == pytest.approx(study.costs(study.actions()[rule]).mean(), abs=0.02)
    assert len(right.get_lines()) == 3


@pytest.mark.slow
def test_the_answer_in_the_document_is_what_comes_out():
    studies = medical_study.study(*medical_study.tumours(), medical.PENALTIES, medical.REPEATS)
    costs = {
        (penalty, rule): study.costs(chosen).mean()
        for penalty, study in zip(medical.PENALTIES, studies, strict=True)
        for rule, chosen in study.actions().items()
    }
    expected = {"argmax": 0.170, "least cost": 0.116, "least cost, tempered": 0.137}
    assert {rule: costs[0.01, rule] for rule in expected} == pytest.approx(expected, abs=0.005)
    assert all(costs[l2, "least cost"] < costs[l2, "argmax"] for l2 in medical.PENALTIES)
