"""The list of regions is botocore's, so that a new release of it is noticed."""

import botocore.session

from ecr_relay.regions import PARTITION_OF_REGION


def test_regions_are_botocores() -> None:
    session = botocore.session.get_session()
    known = {
        region: partition
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ecr", partition)
    }
    assert known == PARTITION_OF_REGION
