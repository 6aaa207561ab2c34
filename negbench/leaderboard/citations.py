"""BibTeX of what an entry used: its method, rule, metrics, sampler, and the ranking itself."""

from __future__ import annotations

from negbench.leaderboard.entry import Entry


def _arxiv(key: str, authors: str, title: str, eprint: str) -> str:
    return (
        f"@misc{{{key},\n  author = {{{authors}}},\n  title = {{{title}}},\n"
        f"  year = {{20{eprint[:2]}}},\n  eprint = {{{eprint}}},\n"
        "  archiveprefix = {arXiv}\n}\n"
    )


PAPERS = {
    "negopt": _arxiv(
        "ogezi2024negopt",
        "Ogezi, Michael and Shi, Ning",
        "Optimizing Negative Prompts for Enhanced Aesthetics and Fidelity in Text-To-Image "
        "Generation",
        "2403.07605",
    ),
    "window": _arxiv(
        "ban2024understanding",
        "Ban, Yuanhao and Wang, Ruochen and Zhou, Tianyi and Cheng, Minhao and Gong, Boqing and "
        "Hsieh, Cho-Jui",
        "Understanding the Impact of Negative Prompts: When and How Do They Take Effect?",
        "2406.02965",
    ),
    "cfg": _arxiv(
        "ho2022classifierfree",
        "Ho, Jonathan and Salimans, Tim",
        "Classifier-Free Diffusion Guidance",
        "2207.12598",
    ),
    "composable_not": _arxiv(
        "liu2022composable",
        "Liu, Nan and Li, Shuang and Du, Yilun and Torralba, Antonio and Tenenbaum, Joshua B.",
        "Compositional Visual Generation with Composable Diffusion Models",
        "2206.01714",
    ),
    "perp_neg": _arxiv(
        "armandpour2023perpneg",
        "Armandpour, Mohammadreza and Sadeghian, Ali and Zheng, Huangjie and Sadeghian, Amir and "
        "Zhou, Mingyuan",
        "Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus "
        "problem and Beyond",
        "2304.04968",
    ),
    "sld": _arxiv(
        "schramowski2022sld",
        'Schramowski, Patrick and Brack, Manuel and Deiseroth, Bj{\\"o}rn and Kersting, Kristian',
        "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion Models",
        "2211.05105",
    ),
    "ccfg": _arxiv(
        "chang2024ccfg",
        "Chang, Jinho and Chung, Hyungjin and Ye, Jong Chul",
        "Contrastive CFG: Improving CFG in Diffusion Models by Contrasting Positive and Negative "
        "Concepts",
        "2411.17077",
    ),
    "nag": _arxiv(
        "chen2025nag",
        "Chen, Dar-Yen and Bandyopadhyay, Hmrishav and Zou, Kai and Song, Yi-Zhe",
        "Normalized Attention Guidance: Universal Negative Guidance for Diffusion Models",
        "2505.21179",
    ),
    "nasa": _arxiv(
        "nguyen2024snoopi",
        "Nguyen, Viet and Nguyen, Anh and Dao, Trung and Nguyen, Khoi and Pham, Cuong and Tran, "
        "Toan and Tran, Anh",
        "SNOOPI: Supercharged One-step Diffusion Distillation with Proper Guidance",
        "2412.02687",
    ),
    "vsf": _arxiv(
        "guo2025vsf",
        "Guo, Wenqi and Du, Shan",
        "VSF: Simple, Efficient, and Effective Negative Guidance in Few-Step Image Generation "
        "Models By Value Sign Flip",
        "2508.10931",
    ),
    "inception_score": _arxiv(
        "salimans2016improved",
        "Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and Radford, "
        "Alec and Chen, Xi",
        "Improved Techniques for Training GANs",
        "1606.03498",
    ),
    "clip_alignment": _arxiv(
        "hessel2021clipscore",
        "Hessel, Jack and Holtzman, Ari and Forbes, Maxwell and Le Bras, Ronan and Choi, Yejin",
        "CLIPScore: A Reference-free Evaluation Metric for Image Captioning",
        "2104.08718",
    ),
    "lpips": _arxiv(
        "zhang2018unreasonable",
        "Zhang, Richard and Isola, Phillip and Efros, Alexei A. and Shechtman, Eli and "
        "Wang, Oliver",
        "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        "1801.03924",
    ),
    "ssim": (
        "@article{wang2004image,\n"
        "  author = {Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},\n"
        "  title = {Image Quality Assessment: From Error Visibility to Structural Similarity},\n"
        "  journal = {IEEE Transactions on Image Processing},\n"
        "  volume = {13},\n  number = {4},\n  pages = {600--612},\n  year = {2004}\n}\n"
    ),
    "DDIMScheduler": _arxiv(
        "song2020ddim",
        "Song, Jiaming and Meng, Chenlin and Ermon, Stefano",
        "Denoising Diffusion Implicit Models",
        "2010.02502",
    ),
}
REMOVAL = "window"
"""The removal protocol's RSR, RRSR and CR are of the same paper as the window."""

ALWAYS = (
    (
        "@article{holm1979simple,\n  author = {Holm, Sture},\n"
        "  title = {A Simple Sequentially Rejective Multiple Test Procedure},\n"
        "  journal = {Scandinavian Journal of Statistics},\n"
        "  volume = {6},\n  number = {2},\n  pages = {65--70},\n  year = {1979}\n}\n"
    ),
    (
        "@article{mogstad2024inference,\n"
        "  author = {Mogstad, Magne and Romano, Joseph P. and Shaikh, Azeem M. and "
        "Wilhelm, Daniel},\n  title = {Inference for Ranks with Applications to Mobility across "
        "Neighbourhoods and Academic Achievement across Countries},\n"
        "  journal = {The Review of Economic Studies},\n"
        "  volume = {91},\n  number = {1},\n  pages = {476--518},\n  year = {2024}\n}\n"
    ),
)


def bibtex(entries: list[Entry]) -> str:
    """References of what the entries used, each once, in a fixed order; then negbench's own."""
    used: dict[str, None] = {}
    for entry in entries:
        plan = entry.plan
        names = [
            plan.method.name,
            plan.treatment_guidance.kind,
            plan.guidance.kind,
            *entry.metrics,
            str(plan.generator.params.get("scheduler", "")),
        ]
        if plan.benchmark.params.get("protocol") == "removal":
            names.append(REMOVAL)
        used |= {PAPERS[name]: None for name in names if name in PAPERS}
    versions = sorted({entry.provenance.negbench for entry in entries})
    own = (
        "@misc{negbench,\n  author = {{The negbench developers}},\n"
        "  title = {negbench: a dataset and benchmark toolkit for negative prompts},\n"
        f"  note = {{version {', '.join(versions)}}}\n}}\n"
    )
    return "\n".join([*used, *ALWAYS, own])
