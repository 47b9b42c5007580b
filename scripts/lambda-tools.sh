# The tools of the functions, pinned, from the package registry into private environments; a second run finds them there.
# Sourced; puts cargo-lambda, sam and cfn-lint on PATH and sets MINISTACK and MOTO. No Docker and no account is needed.

. scripts/free-port.sh

lambda_tools() {
  local home=${TIDEHOOK_TOOLS:-${CARGO_TARGET_DIR:-target}/lambda-tools}
  mkdir -p "$home"
  home=$(cd "$home" && pwd)
  # What one of them needs of boto is not what another does, so each has an environment of its own.
  lambda_tool "$home/sam" cargo-lambda==1.9.2 aws-sam-cli==1.170.0 cfn-lint==1.58.0
  lambda_tool "$home/ministack" ministack==1.5.33 aws-sam-translator==1.115.0
  lambda_tool "$home/moto" "moto[server,sqs]==5.2.5"
  lambda_tool "$home/aws" awscli==1.46.3
  # Behind what is there: an AWS CLI of the machine comes first.
  export PATH="$home/sam/bin:$PATH:$home/aws/bin" SAM_CLI_TELEMETRY=0
  SAM_PYTHON="$home/sam/bin/python"
  MINISTACK="$home/ministack/bin/ministack"
  MOTO="$home/moto/bin/moto_server"
}

lambda_tool() {
  local dir=$1
  shift
  if [ "$(cat "$dir/installed" 2>/dev/null)" = "$*" ]; then
    return 0
  fi
  echo "Installing $*" >&2
  rm -rf "$dir"
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q --disable-pip-version-check "$@" >&2
  echo "$*" >"$dir/installed"
}
