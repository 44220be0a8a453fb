"""What commands of several trainings share."""
