"""Where the copier's tasks run: a small VPC of this stack, or the subnets that the configuration names."""

from typing import Final

from aws_cdk import Stack
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from ecr_relay import config
from stack.permissions import acknowledge

_CIDR: Final = "10.83.0.0/24"
"""Two /26 subnets. Ten tasks run at the most, and nothing peers with it, so any private range would do."""


class Network(Construct):
    """Subnets and a security group that lets nothing in.

    Without `existing`: public subnets in two zones and no NAT gateway, which would cost more than the copies. The tasks
    have public addresses, since they need ECR and S3, and accept no connection. The VPC's default security group stays
    as AWS makes it, for nothing is ever in it: to strip it takes a custom resource, a function with rights of its own.
    """

    def __init__(self, scope: Construct, id: str, *, existing: config.Network | None) -> None:
        super().__init__(scope, id)
        vpc: ec2.IVpc
        if existing:
            self.subnets = existing.subnet_ids
            self.assign_public_ip = existing.assign_public_ip
            # An id is all that a security group wants of a VPC; the zones are asked for, and not used.
            vpc = ec2.Vpc.from_vpc_attributes(
                self, "Vpc", vpc_id=existing.vpc_id, availability_zones=Stack.of(self).availability_zones
            )
        else:
            own = self._small_vpc()
            self.subnets = tuple(subnet.subnet_id for subnet in own.public_subnets)
            self.assign_public_ip = True
            vpc = own
        self.security_group = ec2.SecurityGroup(
            self, "CopierSecurityGroup", vpc=vpc, description="ecr-relay copier: out to registries, nothing in"
        )

    def _small_vpc(self) -> ec2.Vpc:
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(_CIDR),
            max_azs=2,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=26, map_public_ip_on_launch=False
                )
            ],
            restrict_default_security_group=False,
        )
        acknowledge(
            vpc, "VPC7", "nothing in it listens; what its tasks did, image by image, is in the ledger and their logs"
        )
        return vpc
