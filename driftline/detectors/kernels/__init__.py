"""Compiled detectors for many series at once; see `bank` for what all banks share."""

from driftline.detectors.kernels.adwin import AdwinBank
from driftline.detectors.kernels.bank import ALARM
from driftline.detectors.kernels.charts import CusumBank, EwmaBank
from driftline.detectors.kernels.conformal import ConformalBank
from driftline.detectors.kernels.e_detector import EDetectorBank
from driftline.detectors.kernels.focus import FocusBank
from driftline.detectors.kernels.page_hinkley import PageHinkleyBank
from driftline.detectors.kernels.psi import PsiBank
from driftline.detectors.kernels.rate import RateBank

__all__ = [
    "ALARM",
    "AdwinBank",
    "ConformalBank",
    "CusumBank",
    "EDetectorBank",
    "EwmaBank",
    "FocusBank",
    "PageHinkleyBank",
    "PsiBank",
    "RateBank",
]
