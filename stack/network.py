"""Where the copier's tasks run, and the functions if asked for: a small VPC of this stack, or the subnets that the
configuration names; and the proxy that they use.
"""

from typing import Final, cast

from aws_cdk import Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from ecr_relay import config
from stack.permissions import acknowledge, allow

_CIDR: Final = "10.83.0.0/24"
"""Two /26 subnets. Ten tasks run at the most, and nothing peers with it, so any private range would do."""


def proxies(deployment: config.Deployment) -> dict[str, str]:
    """The environment by which botocore, urllib and skopeo find a proxy. For HTTPS alone: what speaks HTTP is on the
    task itself, which gets its credentials so, or is said to lie in one's own network.
    """
    if not deployment.https_proxy:
        return {}
    names = ",".join(deployment.no_proxy)
    return {"HTTPS_PROXY": deployment.https_proxy} | ({"NO_PROXY": names} if names else {})


class Network(Construct):
    """Subnets and a security group that lets nothing in.

    Without `existing`: public subnets in two zones and no NAT gateway, which would cost more than the copies. The tasks
    have public addresses, since they need ECR and S3, and accept no connection. The VPC's default security group stays
    as AWS makes it, for nothing is ever in it: to strip it takes a custom resource, a function with rights of its own.
    """

    def __init__(self, scope: Construct, id: str, *, existing: config.Network | None) -> None:
        super().__init__(scope, id)
        vpc: ec2.IVpc
        self._functions = bool(existing and existing.functions)
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

    def attach(self, function: lambda_.Function, role: iam.Role) -> None:
        """Run `function` in it, if the configuration says so; `role` is the function's."""
        if not self._functions:
            return
        # What CDK does itself takes a policy of AWS's that allows more, for a role that is not its own nothing.
        resource = cast("lambda_.CfnFunction", function.node.default_child)
        resource.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
            subnet_ids=list(self.subnets), security_group_ids=[self.security_group.security_group_id]
        )
        allow(
            role,
            [
                "ec2:AssignPrivateIpAddresses",
                "ec2:CreateNetworkInterface",
                "ec2:DeleteNetworkInterface",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSubnets",
                "ec2:UnassignPrivateIpAddresses",
            ],
            "*",
            reason="Lambda makes a function's network interfaces in the role's name, and asks for all of these on all "
            "resources (Lambda developer guide, execution role permissions)",
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
