"""Many runs: engines that execute them, one owner per folder, plans, progress and status."""
