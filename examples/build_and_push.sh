#!/usr/bin/env bash
# Builds the example's image and pushes it to ECR; the last line printed is the image's address.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: examples/build_and_push.sh [--repository NAME] [--tag TAG] [--region REGION]
                                  [--platform PLATFORM]

Creates the ECR repository if there is none, logs Docker in, builds the image of this folder and
pushes it. Prints the image's address, for examples/deploy.py --image.

  --repository NAME    the repository (prefect-spot-flows)
  --tag TAG            the image's tag (the time in UTC); tags cannot be overwritten
  --region REGION      the AWS region (the AWS CLI's own)
  --platform PLATFORM  what the tasks run on (linux/amd64); linux/arm64 for ARM64 tasks

Needs Docker, the AWS CLI, and the right to ecr:DescribeRepositories, ecr:CreateRepository,
ecr:GetAuthorizationToken and to push. Give the pool's execution role the right to pull.
USAGE
}

fail() {
  echo "build_and_push.sh: $1" >&2
  exit 2
}

# Values of options and of commands are used only where all of them has the shape.
shaped() {
  local LC_ALL=C
  [[ $2 =~ ^$3$ ]] || fail "$1 is not as it should be: $(printf %.200q "$2")"
}

repository=prefect-spot-flows
tag=$(date -u +%Y%m%d-%H%M%S)
platform=linux/amd64
region=

while (($#)); do
  case $1 in
    --help | -h)
      usage
      exit 0
      ;;
    --repository | --tag | --region | --platform)
      (($# > 1)) || fail "$1 needs a value: see --help"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) fail "unknown option $1: see --help" ;;
  esac
done

for program in aws docker; do
  command -v "$program" >/dev/null || fail "$program is not installed: install it"
done
if [[ -n $region ]]; then
  shaped "the region" "$region" '[a-z0-9-]+'
  export AWS_DEFAULT_REGION=$region AWS_REGION=$region
fi
name='[a-z0-9]+([._/-]+[a-z0-9]+)*'
shaped "the repository" "$repository" "$name"
shaped "the tag" "$tag" '[A-Za-z0-9_][A-Za-z0-9._-]{0,127}'
shaped "the platform" "$platform" '[a-z0-9]+(/[a-z0-9]+)+'

errors=$(mktemp)
trap 'rm -f -- "$errors"' EXIT
# Only a repository that is not there is created: whatever else is wrong stays an error.
if found=$(aws ecr describe-repositories --repository-names "$repository" \
  --query 'repositories[0].repositoryUri' --output text 2>"$errors"); then
  cat "$errors" >&2
else
  [[ $(<"$errors") == *"(RepositoryNotFoundException)"* ]] || fail "$(<"$errors")"
  echo "creating the repository $repository" >&2
  found=$(aws ecr create-repository --repository-name "$repository" \
    --image-tag-mutability IMMUTABLE --image-scanning-configuration scanOnPush=true \
    --query 'repository.repositoryUri' --output text) || fail "the repository is not created"
fi
# The password goes to this host: one of ECR, or none.
shaped "ECR's answer" "$found" \
  "[0-9]{12}\\.dkr\\.ecr(-fips)?\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/$name"
registry=${found%%/*}
image=$found:$tag

password=$(aws ecr get-login-password) || fail "ECR gives no password"
[[ $password =~ ^[[:graph:]]+$ ]] || fail "ECR's password is not shown, and is not one word"
echo "logging in to $registry" >&2
printf %s "$password" | docker login --username AWS --password-stdin "$registry" >&2
echo "building $image" >&2
docker build --platform "$platform" --tag "$image" "$(dirname "$0")" >&2
docker push "$image" >&2
echo "$image"
