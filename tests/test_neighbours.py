"""Methods of others: each loss, mask, step and bound against a case by hand, a limit, or another implementation."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from neighbours import convex, detection, grail, losses, methods, newton
from tests.tiny import decoder_only, encoder_decoder, examples
from unlearning.data.groups import Group
from unlearning.errors import StudyError
from unlearning.measure.ascent import ascent_mean, ascent_sum
from unlearning.measure.models import collate
from unlearning.measure.scoring import prepare, score

FORGET, RETAIN = torch.tensor([-2.0, -6.0]), torch.tensor([-4.0, -1.0])
N_FORGET, N_RETAIN = np.array([2, 2]), np.array([3, 2])
ADAMW = {"optimizer": "adamw", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "learning_rate": 1e-3}
METHODS = {
    "ascent": {"loss": "ascent", **ADAMW},
    "grad-diff": {"loss": "difference", "forget": 1.0, "retain": 1.0, **ADAMW},
    "kl": {"loss": "kl", "weight": 1.0, **ADAMW},
    "npo": {"loss": "npo", "beta": 0.1, **ADAMW},
    "simnpo": {"loss": "simnpo", "beta": 2.5, "gamma": 0.0, **ADAMW},
    "grail": {"loss": "grail", "forget": 0.4, "retain": 2.0, "mask": "gradients", **ADAMW},
    "fine-tuning": {"loss": "retain", **ADAMW},
    "noise": {"loss": "nothing", "optimizer": "noisy-sgd", "noise": 1.0, "learning_rate": 1e-3},
    "newton": {"loss": "newton", "retain": 8, "damping": 1e-3, "iterations": 3, "power": 5},
}


def group(n, seed):
    return Group([f"{seed}-{i}" for i in range(n)], examples(n, seed=seed))


def gradient(loss, *batches):
    values = torch.tensor(batches[0].tolist(), requires_grad=True)
    loss(values, *batches[1:]).backward()
    return values.grad


# Losses


def test_gradient_difference_is_the_difference_of_both_means_per_token():
    # −8/4 and −5/5
    assert float(losses.gradient_difference()(FORGET, N_FORGET, RETAIN, N_RETAIN)) == pytest.approx(-2 + 1)
    weighted = losses.gradient_difference(forget=0.4, retain=2.0)
    assert float(weighted(FORGET, N_FORGET, RETAIN, N_RETAIN)) == pytest.approx(0.4 * -2 + 2.0)


def test_gradient_difference_without_its_retain_term_is_ascent():
    alone = losses.gradient_difference(retain=0.0)(FORGET, N_FORGET, RETAIN, N_RETAIN)
    assert float(alone) == float(ascent_mean(FORGET, N_FORGET))


def test_fine_tuning_on_retain_data_alone_looks_at_no_forget_batch():
    assert float(losses.retain_only(FORGET, N_FORGET, RETAIN, N_RETAIN)) == pytest.approx(1.0)


def test_npo_by_hand():
    # with ℓ − ℓ₀ = 0 and −2 and β = 1/2: −4 · mean(log σ(0), log σ(1))
    found = losses.npo(torch.tensor([-2.0, -4.0]), beta=0.5)(FORGET, N_FORGET)
    assert float(found) == pytest.approx(-4 * (math.log(1 / 2) + math.log(1 / (1 + math.exp(-1)))) / 2)


def test_npo_is_ascent_by_example_as_beta_goes_to_zero_and_everywhere_at_the_start():
    far = gradient(losses.npo(torch.tensor([5.0, -20.0]), beta=1e-6), FORGET, N_FORGET)
    start = gradient(losses.npo(FORGET, beta=3.0), FORGET, N_FORGET)
    ascent = gradient(ascent_sum, FORGET, N_FORGET) / 2
    assert torch.allclose(far, ascent, atol=1e-4) and torch.allclose(start, ascent)


def test_npo_leaves_alone_what_is_far_below_the_original():
    weight = gradient(losses.npo(torch.tensor([-2.0, 94.0]), beta=0.5), FORGET, N_FORGET)
    assert float(weight[0]) == pytest.approx(0.5) and float(weight[1]) < 1e-10


def test_simnpo_by_hand():
    # ℓ/n = −1, −3, β = 2, γ = 1: −mean(log σ(2 − 1), log σ(6 − 1))
    found = losses.simnpo(beta=2.0, gamma=1.0)(FORGET, N_FORGET)
    assert float(found) == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(-5))) / 2)


def test_simnpo_is_ascent_per_token_and_example_as_beta_goes_to_zero():
    found = gradient(losses.simnpo(beta=1e-6), FORGET, np.array([2, 4]))
    assert torch.allclose(found, torch.tensor([1 / 4, 1 / 8]), atol=1e-5)


def test_divergence_by_hand_is_zero_for_equal_logits_and_not_symmetric():
    p, q = torch.tensor([[math.log(1 / 2), math.log(1 / 2)]]), torch.tensor([[math.log(1 / 4), math.log(3 / 4)]])
    assert float(losses.divergence(p, q)) == pytest.approx((math.log(2) + math.log(2 / 3)) / 2)
    assert float(losses.divergence(p, p + 3.0)) == pytest.approx(0.0, abs=1e-7)
    assert float(losses.divergence(q, p)) != pytest.approx(float(losses.divergence(p, q)))


def test_divergence_from_the_original_on_retain_data_is_zero_until_the_model_moves():
    model, original = encoder_decoder(), encoder_decoder()
    batches = itertools.repeat(prepare(examples(4, seed=1), model.config))
    loss = losses.kl_to_original(model, original, batches, weight=2.0)
    assert loss(FORGET, N_FORGET).item() == pytest.approx(-2.0, abs=1e-5)
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(0.3 * torch.randn(model.get_output_embeddings().weight.shape))
    assert loss(FORGET, N_FORGET).item() > -2.0


# GRAIL


def test_standardised_gradients_by_hand_and_of_equal_entries():
    assert torch.allclose(grail.standardised(torch.tensor([1.0, 3.0])), torch.tensor([-1.0, 1.0]))
    assert grail.standardised(torch.full((2, 2), 5.0)).eq(0).all()


def test_the_top_share_is_that_of_largest_size_and_at_least_one_entry():
    values = torch.tensor([[0.1, -3.0], [2.0, 0.0]])
    assert grail.top(values, 0.5).tolist() == [[False, True], [True, False]]
    assert grail.top(values, 0.01).sum() == 1


def test_masks_of_two_domains_by_hand():
    # largest of unlearn: entries 0 and 1; of retain: 1 and 2. Their unions share 1; no entry is on top of both retains
    at = torch.eye(4)
    unlearn, retain = [[at[0]], [at[1]]], [[at[1]], [at[2]]]
    forget_mask, retain_mask = grail.localise(unlearn, retain, share=(0.25, 0.25))
    assert forget_mask[0].tolist() == [False, True, False, False]
    assert not retain_mask[0].any()


def test_of_one_domain_the_second_mask_is_the_top_of_its_retain_gradients():
    gradients = [torch.tensor([5.0, 0.0, 0.0, -1.0])]
    masks = grail.localise([gradients], [gradients], share=(0.25, 0.5))
    assert [mask[0].tolist() for mask in masks] == [[True, False, False, False], [True, False, False, True]]


def test_gradients_of_opposite_sign_cancel_in_a_domain():
    model = encoder_decoder()
    both, one = (prepare(examples(n), model.config) for n in (2, 1))
    other = prepare(examples(2)[1:], model.config)
    sums = zip(*(grail.summed_gradients(model, x) for x in (both, one, other)), strict=True)
    assert all(torch.allclose(two, (a + b) / 2, atol=1e-5) for two, a, b in sums)


@pytest.mark.parametrize(
    ("unlearn", "retain", "share", "told"),
    [([[torch.ones(2)]], [], (0.1, 0.2), "no|retain"), ([[torch.ones(2)]], [[torch.ones(2)]], (1.0, 0.5), "every")],
    ids=["no retain data", "a mask that covers all"],
)
def test_masks_that_make_no_sense_are_refused_in_a_sentence(unlearn, retain, share, told):
    with pytest.raises(StudyError, match=told):
        grail.localise(unlearn, retain, share=share)


def test_random_masks_are_as_large_elsewhere_and_follow_their_seed():
    masks = [[torch.arange(400).view(20, 20) < 40], [torch.zeros(5, dtype=torch.bool)]]
    first, again, other = (grail.at_random(masks, seed=seed) for seed in (0, 0, 1))
    assert first[0][0].sum() == 40 and first[1][0].sum() == 0
    assert first[0][0].equal(again[0][0]) and not first[0][0].equal(other[0][0]) and not first[0][0].equal(masks[0][0])


def test_each_kind_of_batch_is_masked_by_its_own_mask_alone():
    p = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    masks = [[torch.tensor([True, False, False])], [torch.tensor([False, True, False])]]
    loss = grail.masked_difference([p], masks, forget=0.4, retain=2.0)
    # ℓ(F) = 10 Σp over 2 tokens, ℓ(R) = Σp over 1: gradients 0.4 · 5 and −2 · 1
    one = np.array([1])
    loss((10 * p.sum())[None], np.array([2]), p.sum()[None], one).backward()
    assert p.grad.tolist() == pytest.approx([-2.0, 2.0, 0.0])


def test_masks_that_cover_nothing_give_the_gradient_difference():
    model, grads = encoder_decoder(), []
    parameters = list(model.parameters())
    none = [[torch.zeros(p.shape, dtype=torch.bool) for p in parameters]] * 2
    weights = {"forget": 0.4, "retain": 2.0}
    batches = [prepare(examples(4, seed=s), model.config) for s in (0, 1)]
    for loss in (grail.masked_difference(parameters, none, **weights), losses.gradient_difference(**weights)):
        seen = [x for b in batches for x in (methods.log_likelihoods(model, b)[0], b.n_tokens)]
        grads.append(torch.autograd.grad(loss(*seen), parameters))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


# A method on a model


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_starts_at_the_original_moves_and_repeats_itself(name):
    runs = []
    for _ in range(2):
        model = encoder_decoder()
        forget, retain = group(6, 0), group(20, 1)
        shapes = [torch.zeros(p.shape, dtype=torch.bool) for p in model.parameters()]
        given = {"masks": [shapes, shapes], "seed": 3}
        before = score(model, forget.encoded).log_likelihood
        states = list(itertools.islice(methods.unlearning(model, METHODS[name], forget, retain, **given), 4))
        assert [s.step for s in states] == [0, 1, 2, 3]
        assert states[0].log_likelihood.numpy() == pytest.approx(before, abs=1e-4)
        runs.append(torch.stack([s.log_likelihood for s in states]))
    assert runs[0].equal(runs[1]) and not torch.allclose(runs[0][0], runs[0][-1], atol=1e-6)


@pytest.mark.parametrize("name", ["ascent", "grad-diff", "kl", "npo", "simnpo", "grail"])
def test_methods_that_ascend_lower_the_likelihood_of_the_forget_set(name):
    model = encoder_decoder()
    shapes = [torch.zeros(p.shape, dtype=torch.bool) for p in model.parameters()]
    method = METHODS[name] | ({"retain": 0.1} if "retain" in METHODS[name] else {})
    run = methods.unlearning(model, method, group(6, 0), group(20, 1), masks=[shapes, shapes], seed=0)
    first, *_, last = itertools.islice(run, 6)
    assert last.log_likelihood.sum() < first.log_likelihood.sum()


@pytest.mark.parametrize("name", ["grad-diff", "kl", "fine-tuning", "newton"])
def test_a_method_that_looks_at_retain_data_wants_some(name):
    with pytest.raises(StudyError, match="retain data, and there is none"):
        next(methods.unlearning(encoder_decoder(), METHODS[name], group(2, 0), Group([], []), masks=[], seed=0))


def test_noise_is_of_the_size_that_it_is_said_to_be():
    p = nn.Parameter(torch.zeros(20_000))
    optimizer = methods.NoisySGD([p], lr=0.1, noise=2.0, seed=0)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert float(p.detach().mean()) == pytest.approx(-0.1, abs=0.01)
    assert float(p.detach().std()) == pytest.approx(0.2, rel=0.03)


def test_retain_batches_hold_each_example_once_a_pass():
    model, retain = encoder_decoder(), group(6, 1)
    batches = list(itertools.islice(methods.retain_batches(retain, model, size=2, seed=0), 3))
    assert sum(int(b.n_tokens.sum()) for b in batches) == sum(len(target) for _, target in retain.encoded)


def test_newton_in_the_output_layer_moves_nothing_else():
    model = encoder_decoder()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = methods.unlearning(model, METHODS["newton"], group(6, 0), group(20, 1), masks=[], seed=0)
    list(itertools.islice(run, 4))
    after = dict(model.named_parameters())
    assert all(after[name].equal(p) for name, p in before.items())
    assert not model.get_output_embeddings().weight.equal(before["shared.weight"])


# Newton

MATRIX = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
B = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def quadratic(w):
    return w @ MATRIX @ w / 2 - B @ w


def test_conjugate_gradients_solve_a_damped_system_as_lapack_does():
    p, image = newton.solve(lambda v: MATRIX @ v, B, damping=0.3, iterations=3)
    damped = MATRIX + 0.3 * torch.eye(3, dtype=torch.float64)
    assert torch.allclose(p, torch.linalg.solve(damped, B)) and torch.allclose(image, damped @ p)


def test_conjugate_gradients_take_no_more_products_than_allowed():
    calls = []
    newton.solve(lambda v: calls.append(v) or MATRIX @ v, B, damping=0.0, iterations=2)
    assert len(calls) == 2


def test_a_hessian_vector_product_is_that_of_the_hessian():
    here = newton.local(lambda w: w.pow(4).sum(), torch.tensor([1.0, 2.0]))
    assert here.product(torch.tensor([1.0, 1.0])).tolist() == [12.0, 48.0]
    assert here.gradient.tolist() == [4.0, 32.0] and here.value == 17.0


def test_power_iteration_finds_the_largest_eigenvalue():
    found = newton.largest_curvature(lambda v: MATRIX @ v, B, iterations=60, seed=0)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(MATRIX)[-1]), rel=1e-6)


def test_one_undamped_step_is_exact_for_a_quadratic():
    found = newton.one_step(quadratic, torch.zeros(3, dtype=torch.float64), damping=0.0, iterations=3)
    assert torch.allclose(found, torch.linalg.solve(MATRIX, B))


def trials(loss, w, n, **options):
    options = {"damping": 0.0, "iterations": 10, "power": 30, "seed": 0} | options
    return list(itertools.islice(newton.trust_region(loss, w, **options), n))


def test_the_trust_region_comes_to_the_minimiser_and_no_step_is_longer_than_its_radius():
    run = trials(quadratic, 5 * torch.ones(3, dtype=torch.float64), 200, tolerance=1e-6)
    assert torch.allclose(run[-1].w, torch.linalg.solve(MATRIX, B), atol=1e-5)
    steps = [float((b.w - a.w).norm()) for a, b in itertools.pairwise(run)]
    assert all(s <= a.gradient_norm / a.smoothness * (1 + 1e-9) for s, a in zip(steps, run, strict=False))
    assert all(b.value <= a.value for a, b in itertools.pairwise(run))
    assert run[1].ratio == pytest.approx(1.0)  # the model of a quadratic is the quadratic


def test_a_step_that_does_not_gain_is_refused_and_the_radius_halved():
    # flat where it starts, steep behind: the quadratic model promises what the loss does not keep
    def loss(w):
        return -w.sum() + 50 * nn.functional.softplus(60 * (w - 0.3)).sum()

    first, second, *_ = trials(loss, torch.zeros(1, dtype=torch.float64), 3)
    assert not second.accepted and second.smoothness == 2 * first.smoothness and second.w.equal(first.w)


# Convex heads


def rows(n=60, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(np.column_stack([rng.normal(size=(n, d - 1)), np.ones(n)]))
    return x, x @ torch.arange(1.0, d + 1, dtype=torch.float64) + torch.from_numpy(rng.normal(size=n))


def test_the_minimiser_of_ridge_is_the_closed_form():
    x, y = rows()
    closed = convex.ridge_minimiser(x, y, penalty=0.1)
    found = convex.minimiser(convex.ridge(x, y, penalty=0.1), torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(found, closed, atol=1e-8)


def test_the_logistic_loss_by_hand_and_its_gradient_at_the_minimiser():
    x, y = rows()
    label = (y > y.median()).double()
    loss = convex.logistic(x, label, penalty=0.1)
    assert float(loss(torch.zeros(4, dtype=torch.float64))) == pytest.approx(math.log(2))
    w = convex.minimiser(loss, torch.zeros(4, dtype=torch.float64))
    p = torch.sigmoid(x @ w)
    assert (x.T @ (p - label) / len(x) + 0.1 * w).norm() < 1e-8


def test_one_newton_step_unlearns_rows_of_ridge_exactly_and_a_trust_region_does_so_for_logistic():
    x, y = rows()
    kept = slice(5, None)
    start = convex.ridge_minimiser(x, y, penalty=0.1)
    loss = convex.ridge(x[kept], y[kept], penalty=0.1)
    found = newton.one_step(loss, start, damping=0.0, iterations=10)
    assert torch.allclose(found, convex.ridge_minimiser(x[kept], y[kept], penalty=0.1), atol=1e-9)
    label = (y > y.median()).double()
    start = convex.minimiser(convex.logistic(x, label, penalty=0.1), torch.zeros(4, dtype=torch.float64))
    loss = convex.logistic(x[kept], label[kept], penalty=0.1)
    goal = convex.minimiser(loss, start)
    single = newton.one_step(loss, start, damping=0.0, iterations=10)
    last = trials(loss, start, 200, tolerance=1e-6)[-1].w
    assert (last - goal).norm() < (single - goal).norm() / 10


def test_a_singular_hessian_is_told_and_a_regular_one_has_the_eigenvalues_of_lapack():
    x, y = rows()
    twice = torch.column_stack([x, x[:, 0]])
    with pytest.raises(StudyError, match="singular"):
        convex.curvature(convex.ridge(twice, y, penalty=0.0), torch.zeros(5, dtype=torch.float64))
    least, most = convex.curvature(convex.ridge(x, y, penalty=0.1), torch.zeros(4, dtype=torch.float64))
    values = np.linalg.eigvalsh((x.T @ x / len(x)).numpy()) + 0.1
    assert (least, most) == pytest.approx((values[0], values[-1]))


def test_the_certificates_noise_by_hand_and_none_at_the_minimiser():
    same = {"least_curvature": 0.5, "epsilon": 2.0, "delta": 1.25 / math.e**2}
    assert convex.certified_sd(gradient_norm=3.0, **same) == pytest.approx(3.0 / 0.5 * 2 / 2.0)
    assert convex.certified_sd(gradient_norm=0.0, **same) == 0.0


def test_the_stopping_rule_by_hand_and_the_privacy_that_its_noise_gives():
    rule = convex.stopping_rule(alpha=0.8, epsilon=0.5, smoothness=2.0, dimension=5)
    assert rule.distance**2 == pytest.approx(0.8 * 0.5 / 40) and rule.noise_sd**2 == pytest.approx(0.8 / 20)
    assert rule.excess == pytest.approx(0.8 * 0.5 / 40 + 0.8 / 4)
    assert (2 * rule.distance) ** 2 / (2 * rule.noise_sd**2) == pytest.approx(0.5)  # divergence per order: ε


def test_steps_of_descent_are_counted_and_never_more_than_predicted():
    x, y = rows()
    goal = convex.ridge_minimiser(x, y, penalty=0.1)
    bounds = convex.curvature(convex.ridge(x, y, penalty=0.1), goal)

    def gradient(w):
        return x.T @ (x @ w - y) / len(x) + 0.1 * w

    same = {"rate": 1 / bounds[1], "distance": 1e-6}
    steps = convex.steps_to(torch.zeros_like(goal), goal, gradient, most=10_000, **same)
    assert 1 < steps <= convex.predicted_steps(start=float(goal.norm()), distance=1e-6, curvatures=bounds)
    assert convex.steps_to(goal, goal, gradient, most=1, **same) == 0
    with pytest.raises(StudyError, match="steps do not come within"):
        convex.steps_to(torch.zeros_like(goal), goal, gradient, most=1, **same)


def test_influence_is_the_distance_to_the_retained_minimiser_up_to_the_penalty_of_the_rows():
    x, y = rows(n=400)
    start = convex.ridge_minimiser(x, y, penalty=1e-9)
    kept = convex.ridge_minimiser(x[3:], y[3:], penalty=1e-9)
    hessian = x[3:].T @ x[3:] / 397
    found = convex.pull(x[:3], x[:3] @ start - y[:3], hessian, retained=397)
    assert found == pytest.approx(float((start - kept).norm()), rel=1e-5)


def test_a_trimmed_mean_by_hand_its_limit_and_its_capacity():
    g = torch.tensor([[1.0, 9.0], [2.0, -50.0], [6.0, 1.0], [100.0, 2.0], [3.0, 3.0]])
    assert convex.trimmed_mean(g, 1).tolist() == pytest.approx([11 / 3, 2.0])
    assert convex.trimmed_mean(g, 0).equal(g.mean(dim=0))
    with pytest.raises(StudyError, match=r"can stand 2 strange ones, not 3"):
        convex.trimmed_mean(g, 3)


def test_robust_training_is_ridge_without_trimming_and_resists_shifted_labels_with_it():
    x, y = rows(n=200)
    clean = convex.ridge_minimiser(x, y, penalty=0.1)
    shifted = y + torch.where(torch.arange(200) < 20, 40.0, 0.0)
    same = {"penalty": 0.1, "rate": 0.3, "tolerance": 1e-9, "most": 400}
    assert torch.allclose(convex.robust_ridge(x, y, f=0, **same), clean, atol=1e-6)
    usual, robust = (convex.robust_ridge(x, shifted, f=f, **same) for f in (0, 20))
    assert (robust - clean).norm() < (usual - clean).norm() / 3


def test_what_noisy_fine_tuning_certifies_by_hand():
    # (2 · 3 + 2 · 1 · 0.5 · 4)² / (4 · 4 · 0.25) = 100 / 4
    same = {"radius": 3.0, "clip": 1.0, "rate": 0.5, "steps": 4}
    assert convex.certified_slope(sd=0.5, **same) == pytest.approx(25.0)
    assert convex.certified_slope(sd=0.0, **same) == math.inf


# Detection


def test_gradient_norms_under_a_uniform_label_are_those_of_finite_differences():
    model = encoder_decoder().double()
    (pair,) = examples(1, seed=4)
    found = detection.gradient_features(model, [pair])
    names = [name for name, _ in model.named_parameters()]
    weight = dict(model.named_parameters())["decoder.final_layer_norm.weight"]

    def loss():
        logits = losses.token_logits(model, collate([pair], model.config))
        return float(-logits.double().log_softmax(-1).mean())

    slopes = []
    for i in range(len(weight)):
        with torch.no_grad():
            sides = []
            for step in (1e-3, -2e-3):
                weight[i] += step
                sides.append(loss())
            weight[i] += 1e-3
        slopes.append((sides[0] - sides[1]) / 2e-3)
    by_tensor = found[0, names.index("decoder.final_layer_norm.weight")]
    assert by_tensor == pytest.approx(math.log(sum(s**2 for s in slopes)), abs=1e-2)


def test_a_uniform_answer_has_no_gradient_and_the_sum_is_over_tensors():
    model = encoder_decoder()
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    assert (detection.gradient_features(model, examples(2)) < math.log(1e-9)).all()
    assert detection.gradient_score(np.log([[1.0, 3.0], [2.0, 2.0]])) == pytest.approx(np.log([4.0, 4.0]))


def test_mahalanobis_distance_is_the_squared_length_in_whitened_space_and_about_the_width_inside():
    inside = np.random.default_rng(0).normal(size=(4000, 3)) @ np.diag([1.0, 5.0, 0.2])
    found = detection.mahalanobis(np.array([[0.0, 10.0, 0.0]]), inside, ridge=0.0)
    assert found[0] == pytest.approx(4.0, rel=0.1)
    assert detection.mahalanobis(inside, inside, ridge=0.0).mean() == pytest.approx(3.0, rel=0.01)


def test_encoder_features_are_those_of_a_batch_and_need_an_encoder():
    model, pairs = encoder_decoder(), examples(3)
    batch = collate(pairs, model.config).inputs
    states = model.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = ((states * mask).sum(1) / mask.sum(1)).detach().numpy()
    assert detection.encoder_features(model, pairs) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(StudyError, match="encoder"):
        detection.encoder_features(decoder_only(), pairs)


def test_the_trained_detector_finds_what_is_there_and_nothing_where_there_is_nothing():
    rng = np.random.default_rng(0)
    strange = np.arange(200) >= 100
    noise = rng.normal(size=(200, 3))
    same = {"penalty": 1e-2, "folds": 2, "seed": 0}
    found = detection.cross_validated(noise + 3.0 * strange[:, None], strange, **same)
    blind = detection.cross_validated(noise, strange, **same)
    assert (found[strange].min() > np.median(found[~strange])) and abs(
        (blind[strange] > np.median(blind)).mean() - 0.5
    ) < 0.15
