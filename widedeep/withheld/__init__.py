"""What a model gives to users and items that were withheld from its training.

Users: some are left out of everything that a model is fitted and chosen on, then served from the history in the
request, beside a model of the same recipe that was trained on them as well. Items: some are left out with all
their interactions, then ranked among all items without interactions, where only their features can tell.
"""

from widedeep.withheld.items import ColdItemStudy, cold_item_study
from widedeep.withheld.users import ColdUserStudy, cold_user_study

__all__ = ["ColdItemStudy", "ColdUserStudy", "cold_item_study", "cold_user_study"]
