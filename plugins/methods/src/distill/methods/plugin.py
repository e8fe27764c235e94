"""What distill-methods provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


def _method(name: str, summary: str, target: str, paper: str) -> Component:
    module = name.replace("-", "_")
    return Component(
        name=name,
        summary=summary,
        target=f"distill.methods.papers.{module}:{target}",
        paper=paper,
        claim=f"distill.methods.claims.{module}:claim",
    )


def _parts(module: str, parts: dict[str, tuple[str, str]]) -> list[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.methods.{module}:{target}")
        for name, (target, summary) in parts.items()
    ]


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return _parts("networks", {"mlp": ("MLPDenoiser", "A perceptron for flat or tiny states")})


@hookimpl
def distill_trajectories() -> Sequence[Component]:
    return [
        *_parts(
            "trajectories",
            {
                "data": ("Data", "The data themselves, for losses that noise them on their own"),
                "noised-data": (
                    "NoisedData",
                    "Data noised to random times, and the student's prediction there",
                ),
                "generate": ("Generate", "The student's own samples, by backward simulation"),
                "own-route": ("OwnRoute", "The student's deterministic route, learnt at all of its times"),
                "stage-jumps": ("StageJumps", "A jump of the student beside several of its teacher's"),
                "solved-data": ("SolvedData", "Noised data, and where a teacher's solver takes them"),
                "view": ("View", "A view of a subject that is no network, through a lens"),
            },
        ),
        *_parts(
            "teacher_paths",
            {
                "grid-jumps": ("GridJumps", "Two jumps of the teacher as one of the student"),
                "teacher-route": (
                    "TeacherRoute",
                    "The student's roll-out beside its teacher's, step by step",
                ),
                "harvest": ("Harvest", "Points of the teacher's own route with their tangents, without data"),
                "window-pairs": ("WindowPairs", "The mean velocity over two windows as the target of the first"),
            },
        ),
        *_parts(
            "consistency",
            {"target-jumps": ("TargetJumps", "Jumps to a target time from both ends of a teacher's move")},
        ),
        *_parts(
            "policies",
            {
                "policy-route": (
                    "PolicyRoute",
                    "States that the student's own policy visits, and the teacher's velocity",
                )
            },
        ),
        *_parts("scales", {"growing-data": ("GrowingData", "Data with the blur of samples that grow")}),
        *_parts(
            "pairs",
            {
                "paired": ("Paired", "The student's samples together with its answers to stored noises"),
                "replay": ("Replay", "End points that the teacher made once, as data"),
            },
        ),
        *_parts(
            "learned_solver",
            {"solver-route": ("SolverRoute", "Ends of a learnt solver's routes, beside the teacher's")},
        ),
        *_parts("foresight", {"foresight": ("Foresight", "Predictions on recorded routes, beside their ends")}),
    ]


@hookimpl
def distill_losses() -> Sequence[Component]:
    return [
        *_parts(
            "losses",
            {
                "score-difference": ("ScoreDifference", "Reverse KL of diffused laws: DMD, VSD, SDS"),
                "score-identity": (
                    "ScoreIdentity",
                    "Fisher divergence with gradient through both scores: SiD",
                ),
                "denoise": ("Denoise", "Denoising of data, or of the student's samples by a critic"),
                "match": ("Match", "Regression of a prediction to a target"),
                "route-score": ("RouteScore", "Reverse KL between two points of the student's route: TDM"),
                "route-denoise": ("RouteDenoise", "A critic of the student's routes: TDM"),
                "jump-generator": ("JumpGenerator", "The student's side of a GAN on jumps"),
                "jump-discriminator": ("JumpDiscriminator", "The discriminator's side of a GAN on jumps"),
                "feature-moments": ("FeatureMoments", "Mean features of a sample against those of its real state"),
                "match-state": ("MatchState", "Regression of a state to a target"),
                "teacher-target": (
                    "TeacherTarget",
                    "Regression of a sample to what the teacher makes of it: ADD",
                ),
                "relativistic-generator": ("RelativisticGenerator", "The student's side of a relativistic GAN: R3GAN"),
                "relativistic-discriminator": ("RelativisticDiscriminator", "The discriminator's side, with R1 and R2"),
                "adversarial-generator": ("AdversarialGenerator", "The student's side of a GAN on features"),
                "adversarial-discriminator": (
                    "AdversarialDiscriminator",
                    "The discriminator's side of a GAN",
                ),
            },
        ),
        *_parts(
            "consistency",
            {"continuous-consistency": ("ContinuousConsistency", "Continuous-time consistency: sCM")},
        ),
        *_parts("layers", {"self-teacher": ("SelfTeacher", "The last layer without some layers against all of them")}),
        *_parts("foresight", {"score-ahead": ("ScoreAhead", "A judge of predictions learns the score of their ends")}),
        *_parts("pairs", {"pair-regression": ("PairRegression", "Regression on stored noise and end-point pairs")}),
    ]


@hookimpl
def distill_transforms() -> Sequence[Component]:
    return [
        *_parts(
            "transforms",
            {
                "lora": ("LoRA", "Low-rank adapters on weights that roles may share"),
                "scalar-input": ("ScalarInput", "An extra scalar input that changes nothing until it is trained"),
            },
        ),
        *_parts("layers", {"layer-budget": ("LayerBudget", "Leave layers out where there is much noise: Presto")}),
        *_parts("negative", {"negative-attention": ("NegativeAttention", "Negative prompts in cross-attention: NASA")}),
        *_parts("policies", {"policy-head": ("PolicyHead", "A wider last layer that says a policy for a segment")}),
        *_parts(
            "pruning",
            {
                "learned-depth": ("LearnedDepth", "Gates that learn which layers a network can do without: TinySR"),
                "constant-time": ("ConstantTime", "A student of one time holds constants for what depends on it alone"),
            },
        ),
    ]


PAPERS = (
    (
        "progressive-distillation",
        "Halve the teacher's steps again and again",
        "ProgressiveDistillation",
        "2202.00512",
    ),
    (
        "guided-distillation",
        "Guidance as an input of one call, then halving",
        "GuidedDistillation",
        "2210.03142",
    ),
    (
        "lora-guided",
        "The guided teacher in one call, as an adapter on its own weights",
        "LoRAGuided",
        "2312.06899",
    ),
    (
        "sfd",
        "Follow the teacher's route, an optimiser step at every step of the roll-out",
        "SFD",
        "2409.19681",
    ),
    ("oss", "The steps of a fine route that a coarse one follows best; trains nothing", "OSS", "2503.21774"),
    (
        "hyperparameter-schedule",
        "Five steps for a network as it is: a longer schedule, cut and spread again",
        "HyperparameterSchedule",
        "2510.02390",
    ),
    ("gas", "A solver learnt from pairs and against a discriminator; the network stays", "GAS", "2510.17699"),
    ("d-ode", "Calibrate a solver to its own fine grid; trains nothing", "DODE", "2309.16421"),
    ("scfm", "A flow learns the mean velocity of longer steps, with two averages of itself", "SCFM", "2510.17858"),
    ("hyper-sd", "Consistency within ever fewer segments, a stage for each number", "HyperSD", "2404.13686"),
    ("tdd", "Jumps to the times that few-step samplers visit; guidance stays open", "TDD", "2409.01347"),
    ("scott", "Consistency across stochastic moves of the teacher, and a GAN", "SCott", "2403.01505"),
    ("pi-flow", "A call is a policy for a whole segment, taught on its own route", "PiFlow", "2510.14974"),
    ("tbcm", "Continuous-time consistency on the teacher's own route, without data", "TBCM", "2511.20410"),
    ("dmd", "Distribution matching with a regression on stored pairs", "DMD", "2311.18828"),
    ("dmd2", "Distribution matching without pairs, on two time scales, with a GAN", "DMD2", "2405.14867"),
    (
        "few-step-sid",
        "Fisher divergence for a chain of steps, with one critic of them all",
        "FewStepSiD",
        "2505.12674",
    ),
    ("sid", "Fisher divergence through teacher and critic, without data", "SiD", "2404.04057"),
    (
        "snoopi",
        "SwiftBrush under guidance of random weight; negative prompts in cross-attention",
        "SNOOPI",
        "2412.02687",
    ),
    (
        "swiftbrush",
        "Variational score distillation; the critic is an adapter on the teacher",
        "SwiftBrush",
        "2312.05239",
    ),
    (
        "add",
        "A GAN on frozen features of clean samples, and the teacher's answer as a target",
        "ADD",
        "2311.17042",
    ),
    ("ladd", "A GAN on the teacher's own features of noised samples", "LADD", "2403.12015"),
    (
        "diversity-control",
        "The teacher's first steps, then the student's; trains nothing",
        "DiversityControl",
        "2503.10637",
    ),
    (
        "adaptive-collaboration",
        "A teacher improves the samples that an oracle finds poor; fits a threshold",
        "AdaptiveCollaboration",
        "2312.10835",
    ),
    (
        "distillation-plusplus",
        "A teacher corrects the student's predictions in sampling; trains nothing",
        "DistillationPlusPlus",
        "2412.08871",
    ),
    ("ttsnap", "Noises are given up early by judges that learn to look ahead", "TTSnap", "2511.22242"),
    ("tdm", "Distribution matching along the student's deterministic route", "TDM", "2503.06674"),
    (
        "sdxl-lightning",
        "Halving by a GAN that first keeps to the flow and then lets go of it",
        "SDXLLightning",
        "2402.13929",
    ),
    (
        "flash-diffusion",
        "The teacher's solution as a target, distribution matching and a GAN added by and by",
        "FlashDiffusion",
        "2406.02347",
    ),
    ("swd", "Samples that grow from step to step, by distribution matching at each size", "SwD", "2503.16397"),
)


@hookimpl
def distill_methods() -> Sequence[Component]:
    teacher = Component(
        name="denoising",
        summary="Train a teacher from nothing by denoising data",
        target="distill.methods.papers.denoising:Denoising",
        paper="2206.00364",
    )
    pruning = Component(
        name="seed-pruning",
        summary="Several noises a sample, of which an oracle keeps the best; trains nothing",
        target="distill.methods.samplers:SeedPruning",
        paper="2511.22242",
    )
    return [teacher, pruning, *(_method(*paper) for paper in PAPERS)]
